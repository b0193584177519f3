"""An int8 model: what it holds, what its engines make of it, and what it costs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from squeezedet.data.dataset import read_split
from squeezedet.data.sample import Sample
from squeezedet.errors import DataError, UsageError
from squeezedet.evaluation.kitti import evaluate
from squeezedet.exporting.int8 import quantize
from squeezedet.media.images import read_image
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.detector import Detector
from squeezedet.runtime.engines.onnxruntime import OnnxRuntimeEngine

PARENTS = Path(__file__).resolve().parents[2] / "parents"


@pytest.fixture(scope="module")
def int8(small: Bundle, pictures: list[Path]) -> Bundle:
    return quantize(small, pictures)


def optimised(graph: bytes, folder: Path) -> Counter[str]:
    """The operations that onnxruntime runs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    model = onnx.load(folder / "optimised.onnx")
    return Counter(node.op_type for node in model.graph.node)


def pixels(width: int = 96, height: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [127 + 100 * np.sin(x / 9 + c) * np.cos(y / 7) for c in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def test_answers_are_near_the_float_ones(small: Bundle, int8: Bundle) -> None:
    before = OnnxRuntimeEngine(small.graph, 1).run(pixels())
    after = OnnxRuntimeEngine(int8.graph, 1).run(pixels())
    spread = before.xyxy.std()
    assert 0 < np.abs(before.xyxy - after.xyxy).mean() < 0.06 * spread
    assert np.abs(before.score - after.score).mean() < 0.08


@pytest.mark.parametrize("size", [(32, 32), (112, 48), (16, 16)])
def test_takes_other_sizes(int8: Bundle, size: tuple[int, int]) -> None:
    found = OnnxRuntimeEngine(int8.graph, 1).run(pixels(*size))
    assert len(found.score) == size[0] * size[1] // 256


def test_onnxruntime_runs_all_of_it_in_int8(int8: Bundle, tmp_path: Path) -> None:
    kinds = optimised(int8.graph, tmp_path)
    assert kinds["QLinearConv"] == 5
    assert kinds["QLinearConcat"] == 1
    assert kinds["DequantizeLinear"] == 1  # behind the head
    assert not kinds.keys() & {"Conv", "Relu", "QuantizeLinear", "Cast"}


def test_openvino_runs_all_of_it_in_int8(int8: Bundle) -> None:
    pytest.importorskip("openvino")
    from squeezedet.runtime.engines.openvino import OpenVinoEngine, import_openvino

    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(int8.graph)
    model.reshape({"images": [1, 64, 96, 3]})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [
        (info["layerType"].value, info["runtimePrecision"].value)
        for info in told
        if info["layerType"].value in ("Convolution", "Pooling", "Concatenation")
    ]
    assert Counter(kinds) == {("Convolution", "u8"): 5, ("Pooling", "u8"): 2, ("Concatenation", "u8"): 1}
    one = OnnxRuntimeEngine(int8.graph, 1).run(pixels())
    other = OpenVinoEngine(int8.graph, threads=1).run(pixels())
    assert np.abs(one.xyxy - other.xyxy).mean() < 0.01 * one.xyxy.std()


def test_kernels_are_int8_with_a_scale_for_each_channel(int8: Bundle) -> None:
    model = onnx.load_from_string(int8.graph)
    stored = {t.name: t for t in model.graph.initializer}
    kernels = [t for t in stored.values() if len(t.dims) == 4 and t.data_type == TensorProto.INT8]
    assert len(kernels) == 5
    for kernel in kernels:
        values = numpy_helper.to_array(kernel)
        assert np.abs(values.astype(int)).max() == 64  # 7 bits: safe without VNNI
        scale = stored[kernel.name.replace("_quantized", "_scale")]
        assert list(scale.dims) == [len(values)]
    rest = sum(np.prod(t.dims) for t in stored.values() if t.data_type == TensorProto.FLOAT)
    assert rest < 200


def test_fewer_bits_make_a_smaller_file(small: Bundle, int8: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    def write(model: Bundle) -> int:
        path = tmp_path / "it.bundle"
        bundle.write(path, model)
        assert bundle.read(path).graph == model.graph
        return path.stat().st_size

    coarse = quantize(small, pictures, weight_bits=5)
    for tensor in onnx.load_from_string(coarse.graph).graph.initializer:
        if len(tensor.dims) == 4 and tensor.data_type == TensorProto.INT8:
            values = numpy_helper.to_array(tensor)
            assert not (values % 4).any()
            assert np.abs(values.astype(int)).max() == 64
    assert coarse.card.training["export"]["int8"]["weight_bits"] == 5
    assert write(coarse) < write(int8)


def test_card_says_how_it_was_made(small: Bundle, int8: Bundle) -> None:
    card = int8.card
    assert card.training["steps"] == 1
    note = {"images": 16, "method": "minmax", "layers": 5, "float_layers": [], "weight_bits": 7}
    assert card.training["export"]["int8"] == note
    assert card.results == {}
    assert small.card.results
    assert card.graph_sha256 == hashlib.sha256(int8.graph).hexdigest()


def test_the_same_images_give_the_same_bytes(small: Bundle, int8: Bundle, pictures: list[Path]) -> None:
    assert quantize(small, pictures).graph == int8.graph


def test_layers_stay_float(small: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    said: list[str] = []
    made = quantize(small, pictures, keep_float=["conv1", "head"], say=said.append)
    kinds = optimised(made.graph, tmp_path)
    assert (kinds["QLinearConv"], kinds["Conv"] + kinds["FusedConv"]) == (3, 2)
    assert made.card.training["export"]["int8"]["float_layers"] == ["conv1", "head"]
    assert said == ["int8: 3 layers, calibrated on 16 images", "float32: conv1, head"]


def test_twice(int8: Bundle, pictures: list[Path]) -> None:
    with pytest.raises(UsageError, match="made from a float model"):
        quantize(int8, pictures)


def test_unreadable_image(small: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        quantize(small, [*pictures, broken])


def test_too_few_images(small: Bundle, pictures: list[Path]) -> None:
    with pytest.raises(DataError, match="only 3 images to calibrate int8 on"):
        quantize(small, pictures[:3])


def _mean_ap(model: Bundle, samples: Sequence[Sample]) -> float:
    detector = Detector(model)
    found = [detector.detect(read_image(s.image), score=0.0) for s in samples]
    results: Any = evaluate([s.objects for s in samples], found, "current").results
    return float(np.mean([results[name]["moderate"].ap40 for name in ("car", "pedestrian")]))


@pytest.mark.shared
@pytest.mark.parametrize(("parent", "most_bytes"), [("squeezedet-full", 2_300_000), ("squeezedet-slim", 1_100_000)])
def test_a_float_model_loses_at_most_a_point_of_ap(parent: str, most_bytes: int, shared: Path) -> None:
    roads = shared / "data" / "roads"
    model = bundle.read(PARENTS / f"{parent}.bundle")
    made = quantize(model, [s.image for s in read_split(roads, "train")])
    assert len(made.graph) < most_bytes
    val = read_split(roads, "val")
    assert _mean_ap(made, val) >= _mean_ap(model, val) - 0.01
