"""Any model to any format: it answers the same, or nothing is left."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import squeezedet
from squeezedet.errors import MissingExtraError, ModelError, SqueezeDetError, UsageError
from squeezedet.exporting import convert as module
from squeezedet.exporting.convert import ExportOptions, check_parity, convert, format_of
from squeezedet.preprocess import InputRule
from squeezedet.runtime import bundle, parity
from squeezedet.runtime.bundle import Bundle

from ..conftest import SLIM


@pytest.fixture(scope="module")
def model() -> Bundle:
    """The shipped model at a small size."""
    shipped = bundle.read(SLIM)
    return replace(shipped, card=replace(shipped.card, input=InputRule(320, 96)))


def export(model: Bundle, path: Path, **wish: Any) -> list[str]:
    said: list[str] = []
    convert(model, path, ExportOptions(to=format_of(path, None), **wish), said.append)
    return said


def same_detections(model: Bundle, path: Path) -> None:
    """Detections in the package's picture, from the file and from the model."""
    frame = parity.sample_frame()
    wanted = squeezedet.Detector(model, threads=1).detect(frame, 0.05)
    found = squeezedet.load(path, threads=1).detect(frame, 0.05)
    assert len(wanted) > 0
    np.testing.assert_allclose(found.xyxy, wanted.xyxy, atol=0.5)
    np.testing.assert_allclose(found.score, wanted.score, atol=0.01)
    assert found.names == wanted.names


def test_onnx(model: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.onnx"
    parity_line, wrote = export(model, path)
    assert parity_line.startswith("parity on 2 inputs (onnxruntime): boxes by at most 0 px")
    assert wrote == f"wrote {path}: {path.stat().st_size:,} bytes"
    found = bundle.read(path)
    assert (found.card, found.graph) == (model.card, model.graph)
    again = tmp_path / "again.bundle"
    export(found, again)
    assert bundle.read(again).card == model.card
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == {path, again}


def test_a_bundle_is_exported_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import squeezedet; "
        "squeezedet.export(sys.argv[1], sys.argv[2], fixed=(64, 32), nms=True)"
    )
    command = [sys.executable, "-c", code, str(SLIM), str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert bundle.read(tmp_path / "m.onnx").card.input == InputRule(64, 32, fixed=True)


def test_openvino(model: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "m.xml"
    said = export(model, path)
    assert "(openvino)" in said[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    same_detections(model, path)
    card = bundle.read_card(path)
    assert replace(card, graph_sha256="") == replace(model.card, graph_sha256="")
    assert b"/home" not in path.read_bytes()


def test_openvino_with_nms_at_one_size(model: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    selection = replace(model.card.selection, score=0.05)
    sensitive = replace(model, card=replace(model.card, selection=selection))
    path = tmp_path / "m.xml"
    assert "parity on 1 input " in export(sensitive, path, nms=True, fixed=(320, 96))[0]
    same_detections(sensitive, path)
    raw = squeezedet.load(path, threads=1).raw(parity.sample_frame())
    assert 0 < len(raw.score) < 30


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [None, (624, 192)])
def test_ncnn(model: Bundle, tmp_path: Path, fixed: tuple[int, int] | None) -> None:
    pytest.importorskip("pnnx")
    pytest.importorskip("ncnn")
    path = tmp_path / "m.ncnn.param"
    assert "(ncnn)" in export(model, path, fixed=fixed)[0]
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["m.ncnn.bin", "m.ncnn.json", "m.ncnn.param"]
    rule = InputRule(*fixed, fixed=True) if fixed else model.card.input
    same_detections(replace(model, card=replace(model.card, input=rule)), path)


# ------------------------------------------------------------------ failures


def another(model: Bundle) -> Bundle:
    """The same graph with one weight of ConvDet's bias changed."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(model.graph)
    (bias,) = (t for t in graph.graph.initializer if t.name.endswith("convdet.bias"))
    values = numpy_helper.to_array(bias).copy()
    values[27:36] += 0.2  # the confidences
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    content = graph.SerializeToString()
    digest = hashlib.sha256(content).hexdigest()
    return replace(model, graph=content, card=replace(model.card, graph_sha256=digest))


@pytest.mark.parametrize("name", ["m.onnx", "m.xml", "m.bundle"])
def test_a_file_that_answers_otherwise_is_not_kept(
    model: Bundle, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Callable[[Bundle, Path, str], None] = module._write
    other = another(model)
    monkeypatch.setattr(module, "_write", lambda model, path, to: write(other, path, to))
    (tmp_path / name).write_bytes(b"what was there before")
    with pytest.raises(ModelError, match=r"differs: parity on 2 inputs .* scores by at most 0\.0"):
        export(model, tmp_path / name)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"what was there before"]


def test_pictures_are_compared_too(model: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = next(bundle.WEIGHTS.glob("demo.*"))
    monkeypatch.setattr(module, "MAX_PICTURES", 2)
    assert check_parity(model, model, [picture] * 20).startswith("parity on 4 inputs")


def test_a_model_without_its_configuration(model: Bundle, tmp_path: Path) -> None:
    bare = replace(model, card=replace(model.card, training={"config": {"anchors": 3}}))
    with pytest.raises(ModelError, match="does not say what it was built from"):
        export(bare, tmp_path / "m.ncnn.param")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(model: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SqueezeDetError, match="cannot be written"):
        export(model, tmp_path / "file" / "m.onnx")


def test_what_is_not_installed(model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"squeezedet\[openvino\]"):
        export(model, tmp_path / "m.xml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"to": "tensorrt"}, "no format 'tensorrt'"),
        ({"nms": True}, "`nms` is for the formats onnx, openvino, triton, not"),
        ({"to": "ncnn", "nms": True}, "not for ncnn"),
        ({"to": "ncnn", "int8": True}, "`int8` is not for ncnn"),
        ({"int8": True}, "`int8` needs `calibrate`"),
        ({"keep_float": ("conv1",)}, "is for `int8`"),
    ],
)
def test_wishes_that_do_not_go_together(wish: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        ExportOptions(**wish)


def test_the_format_is_in_the_name() -> None:
    assert format_of(Path("a.xml"), None) == "openvino"
    assert format_of(Path("a.ncnn.param"), None) == "ncnn"
    assert format_of(Path("a.bundle"), None) == "bundle"
    for name in ("a.tflite", "a.engine", "a", "a.sqz"):
        with pytest.raises(UsageError, match="no format has the suffix"):
            format_of(Path(name), None)
    assert format_of(Path("site"), "web") == "web"
    with pytest.raises(UsageError, match=r"a file for onnx ends with \.onnx"):
        format_of(Path("a.xml"), "onnx")
