"""`squeezedet train --network NAME` ends with a bundle that detects, for every kind of detector."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import squeezedet
from squeezedet.cli.main import app
from squeezedet.data.scenes import write_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_folder(root, count=4, seed=5, width=192, height=96, val_fraction=0.25)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "size"),
    [
        ("squeezedet-plus", "192x96"),
        ("squeezedet-16", "192x96"),
        ("vgg16-convdet", "96x64"),
        ("resnet50-convdet", "96x64"),
        ("tiny-ssd", "160x160"),
        ("tiny-yolo-v2", "160x96"),
        ("faster-rcnn-alexnet", None),
    ],
)
def test_train_and_detect(data: Path, tmp_path: Path, network: str, size: str | None) -> None:
    words = ["train", "--data", data, "--network", network, "--out", tmp_path, "--name", "mine"]
    words += ["--steps", 2, "--batch", 2, "--workers", 0]
    done = CliRunner().invoke(app, [*map(str, words), *(["--size", size] if size else [])])
    assert done.exit_code == 0, done.output
    detector = squeezedet.load(tmp_path / "mine.bundle")
    found = detector(next((data / "image_2").iterdir()), score=0.0)
    assert found.names == ("car", "pedestrian", "cyclist")
    assert len(found) > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--network", "squeezenet-1.1"), "squeezenet-1.1 classifies"),
        (("--network", "tiny-sdd"), "did you mean tiny-ssd?"),
        (("--network", "tiny-ssd", "--anchors", "9"), "has no anchor shapes"),
        (("--network", "yolo-v1", "--size", "224x224"), "has one size only"),
        (("--network", "tiny-ssd", "--recipe", "paper"), "has none of it"),
    ],
)
def test_mistakes(data: Path, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    failed = CliRunner().invoke(app, ["train", "--data", str(data), "--out", str(tmp_path / "r"), *words])
    assert failed.exit_code == 2
    assert sentence in failed.stderr
    assert not (tmp_path / "r").exists()
