"""A published ONNX graph of one size made one of another size, or of int8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, version_converter

from squeezedet.errors import UsageError
from squeezedet.exporting.int8 import Ranges, Region, Runner, find_region, layer_names, measure, prepare, with_qdq
from squeezedet.runtime.engines import INPUT

STRIDES = (8, 16, 32)
OPSET = 13
"""The first in which an int8 kernel has a scale for each output channel."""
BINS, OUTSIDE = 2048, 1e-4
"""Of a histogram, for each sign; the share of activations that is cut off at each side."""
Size = tuple[int, int]


def normalize_graph(graph: bytes) -> bytes:
    """The same network as engines and our quantizer read it best.

    Weights that old exporters list as inputs too become constants, which engines can fold;
    Constant nodes become initializers; the input is named as ours; opset 13.
    """
    model = version_converter.convert_version(onnx.load_from_string(graph), OPSET)
    model.ir_version = max(model.ir_version, 4)  # before, weights had to be inputs
    constants = [node for node in model.graph.node if node.op_type == "Constant"]
    for node in constants:
        values = numpy_helper.to_array(node.attribute[0].t)
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        model.graph.node.remove(node)
    weights = {tensor.name for tensor in model.graph.initializer}
    (image,) = [port for port in model.graph.input if port.name not in weights]
    for node in model.graph.node:
        node.input[:] = [INPUT if name == image.name else name for name in node.input]
    image.name = INPUT
    del model.graph.input[:]
    model.graph.input.append(image)
    return bytes(model.SerializeToString())


def resize_graph(graph: bytes, size: Size) -> bytes:
    """Change the size of the input, and with it that of the maps that Reshape nodes name.

    The maps of strides 8, 16 and 32 of the old size become those of the new one.

    Args:
        graph: of ``normalize_graph`` or ``quantize_graph``; its input is (1, 3, height, width).
        size: (width, height), multiples of 32.

    Raises:
        UsageError: a side is no multiple of 32.
    """
    width, height = size
    if width % STRIDES[-1] or height % STRIDES[-1]:
        raise UsageError(f"a peer's input must have sides that are multiples of {STRIDES[-1]}, not {width}x{height}")
    model = onnx.load_from_string(graph)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    maps = {(dims[2].dim_value // s, dims[3].dim_value // s): (height // s, width // s) for s in STRIDES}
    dims[2].dim_value, dims[3].dim_value = height, width
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in model.graph.initializer:
        shape = numpy_helper.to_array(tensor).tolist() if tensor.name in shapes else []
        if len(shape) >= 4 and tuple(shape[-2:]) in maps:
            changed = np.array([*shape[:-2], *maps[shape[-2], shape[-1]]], np.int64)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return bytes(model.SerializeToString())


def quantize_graph(graph: bytes, tensors: Iterable[NDArray[Any]]) -> bytes:
    """Quantize by our own quantizer, with the outermost 0.01 % of activations cut off.

    The last convolutions, which give logits and distances, stay float32.

    Args:
        graph: of ``normalize_graph``.
        tensors: (1, 3, H, W) inputs to calibrate on.

    Raises:
        ModelError: there is nothing to quantize, or onnxruntime cannot run the graph.
    """
    network = prepare(graph)
    region = find_region(network.graph, _last_layers(network.graph))
    ranges = _without_outliers(network, region, list(tensors))
    return bytes(with_qdq(network, region, ranges).SerializeToString())


def _without_outliers(network: Any, region: Region, tensors: Sequence[NDArray[Any]]) -> Ranges:
    """The ranges that hold all but the outermost 0.01 % at each side."""
    ranges = measure(network, region, tensors)
    runner = Runner(network, list(region.measured))
    counts = dict.fromkeys(region.measured.values(), np.zeros(2 * BINS, np.int64))
    for tensor in tensors:
        for name, values in runner.run(tensor).items():
            scale = region.measured[name]
            edge = max(-ranges.tensor[name][0], ranges.tensor[name][1])
            counts[scale] = counts[scale] + np.histogram(values, 2 * BINS, (-edge, edge))[0]
    spans = {}
    for name, (low, high) in ranges.tensor.items():
        seen = counts[region.scale_of[name]]
        edges = np.linspace(-1, 1, 2 * BINS + 1) * max(-low, high)
        outside = OUTSIDE * seen.sum()
        first = int(np.searchsorted(seen.cumsum(), outside, side="right"))
        last = 2 * BINS - int(np.searchsorted(seen[::-1].cumsum(), outside, side="right"))
        spans[name] = max(low, min(0.0, float(edges[first]))), min(high, max(0.0, float(edges[last])))
    return Ranges(spans, ranges.channels)


def _last_layers(graph: Any) -> list[str]:
    """Names of the convolutions that no other one reads, however far behind."""
    needed: set[str] = set()  # tensors on the way to a convolution
    last = []
    for node in reversed(graph.node):
        feeds = not needed.isdisjoint(node.output)
        if feeds or node.op_type == "Conv":
            needed.update(node.input)
        if not feeds:
            last.append(node.name)
    return [name for name in layer_names(graph) if name in last]
