"""``squeezedet compress``: from a checkpoint to a file that detects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.data.scenes import write_folder
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezedet import ConvDetConfig
from squeezedet.models.tiny_ssd import TinySSD, TinySSDConfig
from squeezedet.pretrained.onnx_file import read_graph
from squeezedet.runtime import bundle
from squeezedet.training import checkpoint
from squeezedet.training.checkpoint import initialize

SIZE = (96, 64)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_folder(root, count=4, seed=5, width=SIZE[0], height=SIZE[1], val_fraction=0.25)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    detector: DetectionNetwork = initialize("convdet", ConvDetConfig(size=SIZE)).detector
    tensors = {f"model.{k}": v for k, v in detector.state_dict().items()}
    metadata = {"config": checkpoint.describe(detector), "step": 1, "recipe": {}, "versions": {}}
    checkpoint.write(path, tensors, metadata)
    return path


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.slow
def test_a_compressed_model_detects(data: Path, trained: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[recipe]\nbatch = 1\nworkers = 0\nshapes = [[96, 64]]\n")
    out, report = tmp_path / "small.sqz", tmp_path / "report"
    words = ("compress", trained, "-o", out, "--finetune", data, "--steps", 2, "--bits", 5)
    words += ("--density", "auto:0.4", "--config", recipe, "--report", report, "--threads", 1)
    done = call(*words)
    assert done.exit_code == 0, done.output
    lines = iter(done.stdout.splitlines())
    for stage in ("float32", "pruned, retrained", "shared", "centroids trained", "coded"):
        assert any(line.startswith(stage) for line in lines), done.stdout

    figures = json.loads((report / "compression.json").read_text())
    assert figures["stages"][-1]["bytes"] == out.stat().st_size < 1_000_000
    assert set(figures["stages"][-1]["ap"]) <= {"car", "pedestrian", "cyclist"}  # those in val
    assert figures["stages"][-1]["density"] <= 0.4
    page = (report / "index.html").read_text()
    assert "Sensitivity" in page
    assert page.count("<svg") > 20

    made = bundle.read(out)
    assert made.card.training["compression"]["bits"] == 5
    kernels = [v for v in read_graph(made.graph, out).tensors.values() if v.ndim == 4]
    assert len(kernels) == 32
    for kernel in kernels:
        assert len(np.unique(kernel)) <= 2**5
        assert not np.signbit(kernel[kernel == 0]).any()
    picture = next((data / "image_2").iterdir())
    found = call("detect", picture, "--model", out, "--out", "-")
    assert json.loads(found.stdout)[0]["width"] == SIZE[0]

    again = call(*words)
    assert (again.exit_code, "--resume" in again.stderr) == (2, True)
    resumed = call(*words, "--resume", "--quiet")
    assert (resumed.exit_code, resumed.stdout) == (0, "")


def kernels_of(path: Path) -> dict[str, np.ndarray]:
    """The kernels in the graph of a model, by the name of their layer."""
    tensors = read_graph(bundle.read(path).graph, path).tensors
    return {name.removesuffix(".half"): v for name, v in tensors.items() if v.ndim == 4}


@pytest.mark.slow
def test_a_shipped_container_is_compressed_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights and its card are those of the first; new biases are zero, which a graph omits."""
    monkeypatch.setattr(bundle, "WEIGHTS", tmp_path)
    words = ("--bits", 4, "--density", 0.5, "--licence", "CC0", "--data-note", "scenes", "-q")
    done = call("compress", trained, "-o", tmp_path / "tiny.bundle", *words)
    assert done.exit_code == 0, done.output
    again = tmp_path / "again.sqz"
    done = call("compress", "tiny", "-o", again, "--density", 1, "--licence", "MIT", "-q")
    assert done.exit_code == 0, done.output
    card = bundle.read_card(again)
    assert (card.licence, card.data, card.name) == ("MIT", "scenes", "again")
    assert card.input == bundle.read_card(tmp_path / "tiny.bundle").input
    before, after = kernels_of(tmp_path / "tiny.bundle"), kernels_of(again)
    assert len(before) == 32
    assert before.keys() == after.keys()
    assert all(np.array_equal(kernel, after[name]) for name, kernel in before.items())


@pytest.mark.slow
def test_tiny_ssd(data: Path, tmp_path: Path) -> None:
    """Its batch normalisation is in the kernels before they are shared, and in no graph."""
    torch.manual_seed(0)
    network = TinySSD(TinySSDConfig(classes=("car", "pedestrian", "cyclist"), size=(96, 96)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_var").uniform_(0.5, 2)
    run, recipe = tmp_path / "last.safetensors", tmp_path / "recipe.toml"
    tensors = {f"model.{k}": v for k, v in network.state_dict().items()}
    metadata = {"config": checkpoint.describe(network), "step": 1, "recipe": {}, "versions": {}}
    checkpoint.write(run, tensors, metadata)
    recipe.write_text("[recipe]\nbatch = 1\nworkers = 0\nshapes = [[96, 96]]\nbf16 = false\n")
    out = tmp_path / "ssd.sqz"
    words = ("compress", run, "-o", out, "--finetune", data, "--steps", 2, "--bits", 5)
    words += ("--config", recipe, "--threads", 1, "--quiet")
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert b"BatchNormalization" not in bundle.read(out).graph
    assert all(len(np.unique(kernel)) <= 2**5 for kernel in kernels_of(out).values())
    assert call(*words, "--resume").exit_code == 0
    again = tmp_path / "again.sqz"
    assert call("compress", out, "-o", again, "--density", 1, "-q").exit_code == 0
    before, after = kernels_of(out), kernels_of(again)
    assert all(np.array_equal(kernel, after[name]) for name, kernel in before.items())
    assert bundle.read_card(again).selection == bundle.read_card(out).selection


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("-o", "x.tflite"), 2, "must end in .bundle"),
        (("--density", "1.2"), 2, "no number above 0 to 1"),
        (("--density", "nan"), 2, "no number above 0 to 1"),
        (("--density", "auto"), 2, "give --finetune"),
        (("--density", "missing.toml"), 2, "missing.toml: no such file"),
        (("--bits", "11"), 2, "from 1 to 10"),
        (("--bits", "1.5"), 2, "from 1 to 10"),
        (("--resume",), 2, "give --finetune"),
        (("--device", "cpu"), 2, "give --finetune"),
        (("--finetune", "nowhere"), 3, "no such file or folder"),
    ],
)
def test_mistakes(trained: Path, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str) -> None:
    failed = call("compress", trained, "-o", tmp_path / "x.sqz", *words)
    assert failed.exit_code == code, failed.output
    assert sentence in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    failed = call("compress", "nothing", "-o", tmp_path / "x.sqz")
    assert (failed.exit_code, "no such model file" in failed.stderr) == (2, True)


def test_other_classes(trained: Path, tmp_path: Path) -> None:
    scenes = tmp_path / "data"
    write_folder(scenes, count=2, seed=5, width=96, height=64, val_fraction=0.5)
    for label in (scenes / "label_2").iterdir():
        label.write_text(label.read_text().replace("Car ", "Boat "))
    failed = call("compress", trained, "-o", tmp_path / "x.sqz", "--finetune", scenes)
    assert failed.exit_code == 3
    assert "the data have" in failed.stderr
