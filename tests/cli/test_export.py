"""``squeezedet export`` of finished models; of checkpoints see ``test_train.py``."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.exporting import convert
from squeezedet.runtime import bundle
from squeezedet.runtime.parity import Tolerance

from ..conftest import SLIM


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_shipped_model_with_another_card(tmp_path: Path) -> None:
    path = tmp_path / "street.onnx"
    words = ("--fixed", "320x96", "--nms", "--name", "street", "--licence", "ours")
    done = call("export", "street", "-o", path, *words)
    assert done.exit_code == 0, done.output
    first, second, third = done.stdout.splitlines()
    assert first.startswith("parity on 1 input (onnxruntime): boxes by at most")
    assert second == f"wrote {path}: {path.stat().st_size:,} bytes"
    assert third == "928,888 parameters"
    card = bundle.read_card(path)
    assert (card.name, card.licence, card.input.width) == ("street", "ours", 320)
    assert card.data == bundle.read_card(bundle.find("street")).data
    found = call("detect", next(bundle.WEIGHTS.glob("demo.*")), "--model", path, "--score", "0.4")
    assert found.exit_code == 0, found.output


def test_parity_failure_exits_4_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impossible = Tolerance(box_px=-1, score=0, lost=0)
    monkeypatch.setattr(convert.parity, "FLOAT", impossible)
    failed = call("export", SLIM, "-o", tmp_path / "m.onnx", "--fixed", "64x32")
    assert failed.exit_code == 4
    assert "the exported model differs" in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("squeezedetto", "-o", "m.onnx"), 2, "no such model file"),
        (("gone.bundle", "-o", "m.onnx"), 2, "no such model file"),
        (("gone.safetensors", "-o", "m.onnx"), 4, "no such checkpoint"),
        (("street", "-o", "m.onnx", "--to", "openvino"), 2, "for openvino ends with .xml"),
        (("street", "-o", "m.engine", "--to", "tensorrt"), 2, "no format 'tensorrt'"),
        (("street", "-o", "m.onnx", "--fixed", "big"), 2, "'big' is not WIDTHxHEIGHT"),
        (("street", "-o", "m.onnx", "--fixed", "100x100"), 2, "a multiple of 16"),
        (("street", "-o", "m.onnx", "--data", "kitti"), 2, "when a checkpoint is exported"),
        (("street", "-o", "m.onnx", "--int8"), 2, "--int8 needs --calibrate: images"),
        (("street", "-o", "m.onnx", "--int8", "--calibrate", "gone"), 3, "gone: No such file"),
        (("street", "-o", "m.onnx", "--int8", "--calibrate", "."), 3, "no images in"),
        (("street", "-o", "m.onnx", "--results", "gone.json"), 3, "gone.json: no such file"),
    ],
)
def test_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = call("export", *words)
    assert (failed.exit_code, sentence in failed.stderr) == (code, True), failed.output
    assert failed.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_model_of_few_values_is_no_good_start_for_int8(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(16):
        shutil.copy(next(bundle.WEIGHTS.glob("demo.*")), photos / f"{k}.jpg")
    parent = bundle.read(SLIM)
    card = replace(parent.card, training=parent.card.training | {"compression": {"bits": 6}})
    bundle.write(tmp_path / "shared.bundle", replace(parent, card=card))
    done = call("export", tmp_path / "shared.bundle", "-o", tmp_path / "a.bundle", "--int8", "--calibrate", photos)
    assert done.exit_code == 0, done.output
    assert "share few values already" in caplog.text


def test_a_folder_in_the_place_of_one_of_two_files(tmp_path: Path) -> None:
    (tmp_path / "m.xml").mkdir()
    (tmp_path / "m.bin").write_text("keep")
    failed = call("export", "street", "-o", tmp_path / "m.xml")
    assert (failed.exit_code, "m.xml: is a folder" in failed.stderr) == (2, True)
    assert (tmp_path / "m.bin").read_text() == "keep"
