"""``squeezedet papers compare``."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.data.scenes import write_folder
from squeezedet.errors import ModelError
from squeezedet.papers.compare import of_card
from squeezedet.runtime import bundle

QUICK = ("--rounds", 1, "--seconds", 0.1, "--threads", 1, "--energy", "none")


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["papers", "compare", *map(str, words)])


@pytest.fixture(scope="module")
def card() -> Any:
    return bundle.read_card(bundle.find("street"))


def test_the_shipped_model_beside_the_papers_rows(tmp_path: Path, card: Any) -> None:
    pytest.importorskip("onnx")
    plots = tmp_path / "plots"
    done = call("street", *QUICK, "--out", "-", "--plots", plots)
    assert done.exit_code == 0, done.output
    ours, *quoted = json.loads(done.stdout)
    assert all(row["quoted"].startswith("quoted: ") for row in quoted) and len(quoted) == 14
    levels = card.results["results"]["car"]
    assert ours["quoted"] == "" and ours["name"] == "street"
    assert ours["ap"]["car"]["easy"] == pytest.approx(100 * levels["easy"]["ap11"])
    assert ours["mean_ap"] == pytest.approx(100 * card.results["map11"])
    assert ours["ap_source"].startswith("its card: ")
    assert ours["parameters"] == 928_888
    assert ours["size_mib"] == pytest.approx(3.543, abs=1e-3)
    assert ours["flops_e9"] == pytest.approx(6.487, abs=1e-3)  # as `profile` counts the network
    assert ours["activation_mib"] == pytest.approx(86.26, abs=0.01)
    assert ours["frames_per_s"] == pytest.approx(1000 / ours["latency_ms"])
    assert ours["power_w"] is None and ours["cpu_s"] > 0
    assert ours["energy_source"].startswith("no energy meter")
    for name in ("speed", "size"):
        assert ET.parse(plots / f"{name}.svg").getroot().tag.endswith("svg")


def test_ap_on_data_by_the_papers_rules(tmp_path: Path) -> None:
    write_folder(tmp_path / "scenes", count=2, width=320, height=96)
    done = call("street", *QUICK, "--data", tmp_path / "scenes", "--split", "all",
                "--out", "-")  # fmt: skip
    assert done.exit_code == 0, done.output
    ours = json.loads(done.stdout)[0]
    answer = tmp_path / "ap.json"
    words = ("evaluate", "--data", tmp_path / "scenes", "--model", "street", "--rules", "paper",
             "--threads", 1, "--split", "all", "--out", answer)  # fmt: skip
    judged = CliRunner().invoke(app, [str(word) for word in words])
    assert judged.exit_code == 0, judged.output
    result = json.loads(answer.read_text())
    assert ours["mean_ap"] == pytest.approx(100 * result["map11"])
    car = result["results"]["car"]
    expected = 100 * car["moderate"]["ap11"] if car else 0.0
    assert ours["ap"]["car"]["moderate"] == pytest.approx(expected)
    assert ours["ap_source"] == (
        f"{tmp_path / 'scenes'} all: 2 images, {result['counts']['objects']} objects, rules paper"
    )


def test_cards_without_kitti_results(card: Any) -> None:
    from dataclasses import replace

    assert of_card(replace(card, results={})) == {}
    assert of_card(replace(card, results={"protocol": "voc", "map": 0.5})) == {}
    with pytest.raises(ModelError, match="none of a KITTI evaluation"):
        of_card(replace(card, results={"protocol": "kitti", "results": {"car": {"easy": 1}}}))
    results = {**card.results, "results": {**card.results["results"], "car": None}}
    assert of_card(replace(card, results=results))["ap"]["car"] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("none.bundle",), 2, "no such model file"),
        (("street", "--energy", "nvm"), 2, "did you mean nvml?"),
        (("street", "--engine", "nimbus"), 2, "no engine 'nimbus'"),
        (("street", "--data", "nowhere"), 3, "nowhere"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], code: int, sentence: str) -> None:
    done = call(*words)
    assert done.exit_code == code, done.output
    assert sentence in " ".join(done.output.split())
