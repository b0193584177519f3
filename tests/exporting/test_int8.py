"""From a float graph to an int8 model: what computes in int8, what its engines make of it, and what it costs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from squeezedet.data.dataset import read_split
from squeezedet.data.sample import Sample
from squeezedet.errors import DataError, ModelError, UsageError
from squeezedet.evaluation.kitti import evaluate
from squeezedet.exporting.int8 import (
    AT_MOST,
    Runner,
    choose_images,
    find_region,
    layer_names,
    measure,
    prepare,
    quantize,
    with_qdq,
)
from squeezedet.media.images import read_image
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.detector import Detector
from squeezedet.runtime.engines import OnnxRuntimeEngine

# ------------------------------------------------------------ a graph made ready


def test_answers_stay_the_same(small: Bundle) -> None:
    network = prepare(small.graph)
    onnx.checker.check_model(network)
    pixels = np.random.default_rng(2).integers(0, 256, (64, 96, 3), np.uint8)
    before = OnnxRuntimeEngine(small.graph, 1).run(pixels)
    after = OnnxRuntimeEngine(network.SerializeToString(), 1).run(pixels)
    assert np.abs(before.xyxy - after.xyxy).max() < 1e-3
    assert np.abs(before.score - after.score).max() < 1e-5


def test_kernels_are_float32_and_relu_stands_before_concat(small: Bundle) -> None:
    graph = prepare(small.graph).graph
    kinds = [node.op_type for node in graph.node]
    assert "Cast" not in kinds
    assert all(t.data_type != TensorProto.FLOAT16 for t in graph.initializer)
    concat = kinds.index("Concat")
    writers = {node.output[0]: node.op_type for node in graph.node}
    assert [writers[name] for name in graph.node[concat].input] == ["Relu", "Relu"]
    assert "Relu" not in kinds[concat:]


def test_layers_have_the_networks_names(small: Bundle) -> None:
    names = layer_names(prepare(small.graph).graph)
    assert names == ["conv1", "fire.squeeze", "fire.expand1", "fire.expand3", "head"]


def test_pixels_are_dequantized_before_they_are_transposed(small: Bundle) -> None:
    first, second, *_ = prepare(small.graph).graph.node
    assert (first.op_type, list(first.input)[:1]) == ("DequantizeLinear", ["images"])
    assert second.op_type == "Transpose"


# ------------------------------------------------------------ the int8 part


@pytest.fixture(scope="module")
def graph(small: Bundle) -> Any:
    return prepare(small.graph).graph


def kinds(graph: Any, names: frozenset[str]) -> list[str]:
    return [node.op_type for node in graph.node if node.name in names]


def test_everything_up_to_the_head_and_nothing_behind_it(graph: Any) -> None:
    region = find_region(graph)
    found = kinds(graph, region.nodes)
    assert sorted(set(found)) == ["Concat", "Conv", "MaxPool", "Relu"]
    assert found.count("Conv") == 5
    assert found[-1] == "Conv"
    assert region.heads == {"head.out": "head"}
    assert region.images == {"pixels"}
    assert "pixels" not in region.scale_of


def test_what_copies_numbers_shares_a_scale(graph: Any) -> None:
    scale = find_region(graph).scale_of
    joined = {scale[n] for n in ("fire.expand1.out", "fire.expand3.out", "relu3", "pool2")}
    assert len(joined) == 1
    assert scale["conv1.out"] == scale["relu1"] == scale["pool"]
    assert len({scale["pool"], scale["relu2"], scale["pool2"], scale["head.out"]}) == 4


def test_only_what_holds_all_numbers_is_measured(graph: Any) -> None:
    assert set(find_region(graph).measured) == {"pool", "relu2", "pool2", "head.out"}


def test_a_layer_left_out_takes_what_depends_on_it_along(graph: Any) -> None:
    region = find_region(graph, ["fire.expand1"])
    assert region.float_layers == ("fire.expand1",)
    assert "Concat" not in kinds(graph, region.nodes)
    assert kinds(graph, region.nodes).count("Conv") == 4
    assert region.heads == {"head.out": "head"}


def test_wildcards(graph: Any) -> None:
    assert find_region(graph, ["fire.*"]).layers == ("conv1", "head")


def test_unknown_layer_says_which_is_meant(graph: Any) -> None:
    with pytest.raises(UsageError, match=r"no layer 'fire.expand4' \(did you mean 'fire.expand"):
        find_region(graph, ["fire.expand4"])


def test_nothing_left(graph: Any) -> None:
    with pytest.raises(ModelError, match="no convolution is left"):
        find_region(graph, ["*"])


# ------------------------------------------------------------ ranges


def test_ranges_hold_what_the_network_gives(small: Bundle) -> None:
    network = prepare(small.graph)
    region = find_region(network.graph)
    random = np.random.default_rng(3)
    pixels = [random.integers(0, 256, (1, 64, 96, 3), np.uint8) for _ in range(2)]
    ranges = measure(network, region, pixels)
    assert set(ranges.tensor) == set(region.scale_of)
    assert all(low == 0 < high for low, high in map(ranges.tensor.get, ("pool", "relu2", "pool2")))
    low, high = ranges.channels["head.out"]
    assert low.shape == high.shape == (6,)
    assert ranges.tensor["head.out"] == (min(0, low.min()), max(0, high.max()))
    one = measure(network, region, pixels[:1]).tensor
    assert all(ranges.tensor[name][1] >= one[name][1] for name in one)


@pytest.mark.parametrize(("count", "says"), [(0, "no image to"), (1, "only 1 image to"), (15, "only 15 images to")])
def test_too_few_images(count: int, says: str) -> None:
    with pytest.raises(DataError, match=f"{says} calibrate int8 on: at least 16"):
        choose_images([Path(f"{i}.png") for i in range(count)])


@pytest.mark.parametrize("count", [16, 64, 65, 200, 1000])
def test_of_many_images_some_are_taken_evenly(count: int) -> None:
    images = [Path(str(i)) for i in range(count)]
    chosen = [int(path.name) for path in choose_images(images)]
    assert len(chosen) == min(count, AT_MOST)
    assert len(set(chosen)) == len(chosen)
    assert chosen[0] == 0
    assert chosen[-1] >= count - 1 - count / AT_MOST


# ------------------------------------------------------------ networks of other shapes, heads that need 8 bits


def network(*, transposed: bool) -> bytes:
    """Residual block, then two matrices as YOLO and Faster R-CNN have them, for 16x16 pixels."""
    random = np.random.default_rng(0)
    rows = (40, 128) if transposed else (128, 40)
    head = (5, 40) if transposed else (40, 5)
    tensors = {
        "a.weight": random.normal(0, 0.2, (8, 3, 3, 3)),
        "b.weight": random.normal(0, 0.2, (8, 8, 3, 3)),
        "b.bias": random.normal(0, 1, 8),
        "rows.weight": random.normal(0, 0.1, rows),
        "rows.bias": random.normal(0, 1, 40),
        # Channels of very different size, as logits beside deltas.
        "head.weight": random.normal(0, 0.1, head) * np.logspace(-2, 2, 5).reshape((-1, 1) if transposed else (1, -1)),
        "head.bias": random.normal(0, 1, 5),
    }
    make: Any = helper.make_node
    matrix = {"transB": int(transposed)}
    nodes = [
        make("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        make("Transpose", ["float"], ["chw"], perm=[0, 3, 1, 2]),
        make("Conv", ["chw", "a.weight"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        make("LeakyRelu", ["a"], ["la"], alpha=0.1),
        make("Conv", ["la", "b.weight", "b.bias"], ["b"], pads=[1, 1, 1, 1]),
        make("Add", ["b", "la"], ["sum"]),
        make("Relu", ["sum"], ["r"]),
        make("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Flatten", ["p"], ["f"]),
        make("Gemm", ["f", "rows.weight", "rows.bias"], ["rows"], **matrix),
        make("Relu", ["rows"], ["rr"]),
        make("Gemm", ["rr", "head.weight", "head.bias"], ["raw"], **matrix),
        make("Sigmoid", ["raw"], ["answer"]),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 16, 16, 3])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in tensors.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, ir_version=10, opset_imports=opset).SerializeToString())


@pytest.mark.parametrize("transposed", [True, False])
def test_each_channel_of_a_head_keeps_its_own_precision(transposed: bool) -> None:
    prepared = prepare(network(transposed=transposed))
    region = find_region(prepared.graph)
    assert region.layers == ("a", "b", "rows", "head")
    assert region.heads == {"raw": "head"}
    random = np.random.default_rng(1)
    pixels = [random.integers(0, 256, (1, 16, 16, 3), np.uint8) for _ in range(20)]
    quantized = with_qdq(prepared, region, measure(prepared, region, pixels))
    onnx.checker.check_model(quantized, full_check=True)
    before, after = Runner(prepared, ["raw"]), Runner(quantized, ["raw"])
    wanted = np.concatenate([before.run(p)["raw"] for p in pixels])
    found = np.concatenate([after.run(p)["raw"] for p in pixels])
    error = np.sqrt(np.square(found - wanted).mean(axis=0)) / wanted.std(axis=0)
    assert wanted.std(axis=0).max() > 1000 * wanted.std(axis=0).min()
    assert (error < 0.2).all()
    assert (error > 0).all()


def test_the_network_is_not_changed() -> None:
    prepared = prepare(network(transposed=True))
    before = prepared.SerializeToString(deterministic=True)
    region = find_region(prepared.graph)
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    with_qdq(prepared, region, measure(prepared, region, [pixels, pixels + 255]))
    assert prepared.SerializeToString(deterministic=True) == before


# ------------------------------------------------------------ the model


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
    from squeezedet.runtime.engines import OpenVinoEngine, import_openvino

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


def test_card_says_how_it_was_made(small: Bundle, int8: Bundle) -> None:
    card = int8.card
    assert card.training["steps"] == 1
    note = {"images": 16, "method": "minmax", "layers": 5, "float_layers": []}
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
