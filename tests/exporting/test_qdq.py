"""Networks of other shapes: residual sums, leaky Relus, matrices; and heads that need 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from squeezedet.exporting.calibration import Runner, find_region, measure, prepare
from squeezedet.exporting.int8 import with_qdq


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
