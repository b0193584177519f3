from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.models.squeezenet import SqueezeNet, SqueezeNetConfig, from_weights
from squeezedet.models.squeezenet import classify as classes_of

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from squeezedet.cli.main import main
main()
"""


def classify(*arguments: str | Path) -> Result:
    given = ["classify", *map(str, arguments)]
    return CliRunner().invoke(app, given, catch_exceptions=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = SqueezeNet(SqueezeNetConfig(version="1.1"))
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    Image.fromarray(noise[::-1, :32]).save(folder / "b.png")
    return folder


def test_table(photos: Path, weights: Path) -> None:
    result = classify(photos, "--weights", weights, "--top", 2)
    assert (result.exit_code, result.stderr) == (0, "")
    pixels = np.asarray(Image.open(photos / "a.png"))
    (first, probability), _ = classes_of(from_weights(weights), pixels, 2)
    lines = result.stdout.splitlines()
    assert lines[0] == f"{photos / 'a.png'}  64x48"
    assert lines[3] == f"{photos / 'b.png'}  32x48"
    assert len(lines) == 6
    assert lines[1].strip().startswith(first)
    assert float(lines[1].split()[-1]) == pytest.approx(probability, abs=6e-4)


def test_records(photos: Path, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    result = classify(photos, "--weights", weights, "--json", path)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 12)
    first, second = json.loads(path.read_text())
    assert (first["image"], first["width"], first["height"]) == (str(photos / "a.png"), 64, 48)
    assert second["image"] == str(photos / "b.png")
    expected = classes_of(from_weights(weights), np.asarray(Image.open(photos / "a.png")))
    assert [c["name"] for c in first["classes"]] == [name for name, _ in expected]
    assert first["classes"][0]["probability"] == pytest.approx(expected[0][1], abs=1e-6)
    printed = classify(photos / "a.png", "--weights", weights, "-o", "-")
    assert len(json.loads(printed.stdout)[0]["classes"]) == 5


def test_a_bad_image_does_not_stop_the_others(photos: Path, weights: Path) -> None:
    (photos / "a.png").write_bytes(b"no image")
    result = classify(photos, "--weights", weights, "--top", 1)
    assert result.exit_code == 3
    assert result.stderr.startswith(f"squeezedet: {photos / 'a.png'}: ")
    assert result.stdout.startswith(f"{photos / 'b.png'}  32x48")


@pytest.mark.slow
def test_a_compressed_network(photos: Path, weights: Path, tmp_path: Path) -> None:
    """All its biases are zero, and the graph inside has none of them."""
    path = tmp_path / "net.sqz"
    made = CliRunner().invoke(app, ["compress", str(weights), "-o", str(path), "--bits", "4"])
    assert made.exit_code == 0, made.output
    result = classify(photos / "a.png", "--weights", path, "--top", 5)
    assert (result.exit_code, result.stderr) == (0, "")
    expected = classes_of(from_weights(path), np.asarray(Image.open(photos / "a.png")))
    found = [line.rpartition("  ")[0].strip() for line in result.stdout.splitlines()[1:]]
    assert found == [name for name, _ in expected]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--network", "squeezenet-1.0"], 4, "expected conv1.weight of shape 96x3x7x7, but"),
        (["--network", "squeezenet-1,1"], 2, "did you mean squeezenet-1.1?"),
        (["--network", "squeezedet"], 2, "squeezedet finds objects and classifies nothing"),
        (["--json", "out.jpg"], 2, "out.jpg: has the name of an image"),
        (["--weights", "missing.onnx"], 4, "missing.onnx: no such file"),
        (["--weights", "model.pt"], 4, "model.pt: not a known kind of weight file"),
    ],
)
def test_mistakes(photos: Path, weights: Path, arguments: list[str], code: int, sentence: str) -> None:
    result = classify(photos, "--weights", weights, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("squeezedet: ")
    assert result.stderr.count("\n") == 1
    assert sentence in result.stderr


@pytest.mark.slow
def test_without_torch(photos: Path, weights: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "classify", photos, "--weights", weights],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "squeezedet: classify needs an optional dependency: pip install 'squeezedet[train]'" in (result.stderr)
