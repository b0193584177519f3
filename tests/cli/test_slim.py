"""``squeezedet slim``: narrower by measured latency."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from squeezedet.cli.main import app
from squeezedet.data.scenes import write_folder
from squeezedet.training.checkpoint import read_detector

from ..conftest import SLIM


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_folder(root, count=4, seed=3, width=192, height=96, val_fraction=0.25)
    return root


@pytest.mark.slow
def test_the_shipped_model_gets_narrower(scenes: Path, tmp_path: Path) -> None:
    path = tmp_path / "slim.safetensors"
    call = ["slim", str(SLIM), "-o", str(path), "--data", str(scenes), "--batches", "1"]
    answer = CliRunner().invoke(app, [*call, "--size", "320x192", "--speed-up", "1.5"])
    assert answer.exit_code == 0, answer.output
    assert "backbone.fire11.expand3x3" in answer.output
    assert "train it with --init" in answer.output
    network, _ = read_detector(path)
    assert sum(p.numel() for p in network.parameters()) < 2_082_120


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([str(SLIM), "-o", "slim.bundle"], "must end in .safetensors"),
        (["nowhere", "-o", "slim.safetensors"], "nowhere"),
    ],
)
def test_wrong_calls(arguments: list[str], said: str, scenes: Path) -> None:
    answer = CliRunner().invoke(app, ["slim", *arguments, "--data", str(scenes)])
    assert isinstance(answer.exception, BaseException)
    assert answer.exit_code != 0
    assert said in f"{answer.output}{answer.exception}"
