"""``squeezedet benchmark``."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app

from ..conftest import SLIM

SMALL = ("--size", "320x96", "--threads", 1)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["benchmark", *(str(word) for word in words)])


@pytest.mark.slow
def test_a_real_run_with_everything(tmp_path: Path) -> None:
    made = tmp_path / "times.json"
    done = call("street", "street", *SMALL, "--rounds", 6, "--out", made)
    assert done.exit_code == 0, done.output
    for words in ("6 rounds by turns over 1 picture of 1242x375", "times as long as street"):
        assert words in done.stdout
    record = json.loads(made.read_text())
    assert record["rounds"] == 6 and len(record["candidates"]) == 2
    first, second = record["candidates"]
    # 6.47 GFLOP at 1248x384, in proportion to the pixels, decoding apart
    assert first["operations"] == pytest.approx(6.47e9 * 320 * 96 / (1248 * 384), rel=0.01)
    assert first["network_ratio"]["median"] == 1.0
    assert 0.3 < second["network_ratio"]["median"] < 3  # the same model once more
    assert first["memory"]["peak_bytes"] > first["memory"]["before_bytes"] + 4_000_000
    median = first["end_to_end_ms"]["median"]
    stages = first["stages_ms"]
    assert median == pytest.approx(sum(stages[s]["median"] for s in ("preprocess", "network", "postprocess")), rel=0.3)
    assert len(first["samples_ms"]["network"]) == 6


@pytest.mark.slow
def test_json_alone_on_the_output_and_images_of_ones_own(tmp_path: Path) -> None:
    for k in range(2):
        Image.new("RGB", (200 + 100 * k, 100), (90, 90, 90)).save(tmp_path / f"{k}.png")
    done = call("street", *SMALL, "--images", tmp_path, "--rounds", 5,
                "--out", "-")  # fmt: skip
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["frame_sizes"] == [[200, 100], [300, 100], [200, 100], [300, 100], [200, 100]]
    assert record["pictures"] == 2


def test_without_onnx_operations_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    from collections import Counter

    from squeezedet.benchmark.latency import mean_operations

    frames = [(1242, 375), (640, 384)]
    sizes = Counter({(1248, 384): 1, (880, 528): 1})
    mean = sum(6.104e9 * w * h / (1248 * 384) * n for (w, h), n in sizes.items()) / 2
    assert mean_operations(str(SLIM), frames) == pytest.approx(mean, rel=0.03)

    real = builtins.__import__

    def without_onnx(name: str, *rest: Any, **named: Any) -> Any:
        if name == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    done = call("street", *SMALL, "--rounds", 1)
    assert "operations are not counted" in done.output and "squeezedet[int8]" in done.output


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("none.bundle",), 2, "none.bundle: no such model file"),
        (("street", "--engine", "nimbus"), 2, "no engine 'nimbus'"),
        (("street", "--size", "wide"), 2, "--size: 'wide' is not WIDTHxHEIGHT"),
        (("street", "--size", "8x8"), 2, "--size: a side must be"),
        (("street", "--images", "nowhere"), 3, "nowhere: no such folder of images"),
        (("street", "--out", "nowhere/a.json"), 2, "there is no folder nowhere"),
        (("street", "--rounds", "0"), 2, "--rounds"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], code: int, sentence: str) -> None:
    done = call(*words)
    assert done.exit_code == code, done.output
    assert sentence in " ".join(done.output.split())


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    done = call("street", "--images", tmp_path)
    assert done.exit_code == 3
    assert "the folder has no images" in done.output
