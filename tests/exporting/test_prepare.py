"""A prepared graph computes the same, in an order that engines run in int8."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from squeezedet.exporting.calibration import layer_names, prepare
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines.onnxruntime import OnnxRuntimeEngine


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
