"""A graph may be anything: what it gives is checked before it is believed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from squeezedet.errors import ModelError, UsageError
from squeezedet.media.images import Frame
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.detector import Detector
from squeezedet.runtime.engines import OnnxRuntimeEngine

PIXELS = np.zeros((32, 48, 3), np.uint8)
BOXES = np.array([[[1, 2, 30, 20], [5, 6, 7, 8]]], np.float32)
SCORES = np.array([[0.9, 0.1]], np.float32)
IDS = np.array([[2, 99]], np.int64)


def graph(
    boxes: NDArray[np.generic] = BOXES,
    scores: NDArray[np.generic] = SCORES,
    class_ids: NDArray[np.generic] = IDS,
    width: int | None = None,
) -> bytes:
    """A graph that gives the same three arrays for every image."""
    arrays = {"boxes": boxes, "scores": scores, "class_ids": class_ids}
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))
        for name, array in arrays.items()
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [1, None, width, 3])
    outputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
        for name, array in arrays.items()
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [images], outputs), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 10
    return model.SerializeToString()


def test_what_the_graph_gives() -> None:
    raw = OnnxRuntimeEngine(graph(), 1).run(PIXELS)
    assert np.array_equal(raw.xyxy, BOXES[0])
    assert np.array_equal(raw.score, SCORES[0])
    assert np.array_equal(raw.class_id, IDS[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"boxes": BOXES[0]},
        {"boxes": BOXES[..., :3]},
        {"boxes": BOXES[:, :1]},
        {"scores": SCORES[0]},
        {"scores": np.float32(1).reshape(())},
        {"class_ids": IDS[:, :1]},
        {"class_ids": IDS[..., None]},
    ],
)
def test_arrays_of_other_shapes(wrong: dict[str, NDArray[np.generic]]) -> None:
    engine = OnnxRuntimeEngine(graph(**wrong), 1)
    with pytest.raises(ModelError, match="arrays of the shapes"):
        engine.run(PIXELS)


def test_arrays_of_another_kind() -> None:
    with pytest.raises(ModelError, match="a detector takes uint8"):
        OnnxRuntimeEngine(graph(class_ids=IDS.astype(np.float32)), 1)


def test_a_graph_that_fails() -> None:
    with pytest.raises(ModelError, match="fails on an input of 48x32 pixels"):
        OnnxRuntimeEngine(graph(width=64), 1).run(PIXELS)


def test_only_a_chosen_class_id_must_have_a_name() -> None:
    card = bundle.read_card(bundle.find("street"))
    frame = Frame(PIXELS)
    detector = Detector(Bundle(card, graph()), threads=1)
    assert [d.name for d in detector.detect(frame, score=0.5)] == ["cyclist"]
    with pytest.raises(ModelError, match="class id"):
        detector.detect(frame, score=0.0)
    two = Bundle(replace(card, classes=("car", "cyclist")), graph())
    with pytest.raises(ModelError, match="none of its 2 classes"):
        Detector(two, threads=1).detect(frame, score=0.5)
    negative = Bundle(card, graph(class_ids=-IDS))
    with pytest.raises(ModelError, match="class id"):
        Detector(negative, threads=1).detect(frame, score=0.5)


def test_a_provider_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Session(onnxruntime.InferenceSession):
        def __init__(self, graph: bytes, options: Any, **providers: Any) -> None:
            given.update(providers)
            super().__init__(graph, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return given["providers"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    for name, options in {"cuda": {}, "cuda:2": {"device_id": "2"}}.items():
        assert OnnxRuntimeEngine(graph(), 1, name).name == f"onnxruntime:{name}"
        assert given == {"providers": both, "provider_options": [options, {}]}
    with pytest.raises(UsageError, match="onnxruntime:cuda:x: onnxruntime has no such card"):
        OnnxRuntimeEngine(graph(), 1, "cuda:x")


def test_nothing_is_reported_or_left_at_home(tmp_path: Path) -> None:
    """onnxruntime's telemetry keeps a database in the home folder; ours leaves nothing there."""
    code = "import numpy, squeezedet; squeezedet.load()(numpy.zeros((16, 16, 3), numpy.uint8))"
    clean = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    home = {**clean, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, check=True)
    assert not list(tmp_path.rglob("*"))
    assert done.stderr == b""
