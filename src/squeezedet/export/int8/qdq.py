"""QuantizeLinear and DequantizeLinear around the int8 part of a graph.

onnxruntime's quantiser places them; its defaults would cost accuracy at the heads and speed at
the image, so both are seen to here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from squeezedet.export.int8.calibration import Ranges
from squeezedet.export.int8.prepare import constants, set_nodes
from squeezedet.export.int8.region import BETWEEN, LAYERS, Region

LEVELS = 255
"""The highest 8-bit number."""


def with_qdq(network: Any, region: Region, ranges: Ranges) -> Any:
    """Quantise: int8 weights with a scale for each output channel, uint8 activations.

    Weights take 7 of the 8 bits, -64 to 64: the product of two pairs with uint8 then fits in the
    16 bits of x86 processors without VNNI, which would saturate without a word.

    Args:
        network: of ``prepare``; not changed.
        region: what computes in int8.
        ranges: of its activations, measured.

    Returns:
        The quantised ``onnx.ModelProto``.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData

    model = onnx.ModelProto()
    model.CopyFrom(network)
    spans = dict(ranges.tensor) | dict.fromkeys(region.images, (0.0, float(LEVELS)))
    for output, layer in region.heads.items():
        spans[_in_levels(model.graph, output, layer, *ranges.channels[output])] = (0.0, LEVELS)
    model = onnx.shape_inference.infer_shapes(model)
    quantiser = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {
                name: (np.array(low, np.float32), np.array(high, np.float32))
                for name, (low, high) in spans.items()
            },
        ),
        nodes_to_quantize=sorted(region.nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=[*LAYERS, *BETWEEN],
        extra_options={},
    )
    quantiser.quantize_model()
    _skip_image(quantiser.model.model.graph, region)
    _shield(quantiser.model.model.graph, region)
    quantiser.model.topological_sort()
    quantiser.model.clean_initializers()
    quantised = quantiser.model.model
    del quantised.graph.value_info[:]
    onnx.checker.check_model(quantised)
    return quantised


def _in_levels(
    graph: Any,
    output: str,
    layer: str,
    low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> str:
    """Let a head give 0 to 255 in each of its channels, and undo that in float32 behind it.

    An int8 output has one scale. The channels of a head, logits and deltas, have ranges of their
    own; so each is stretched to all 256 levels by the kernel and the bias.

    Args:
        graph: changed in place.
        output: what the head gives; means the same afterwards.
        layer: its name.
        low: (C,) lowest number of each channel.
        high: (C,) highest.

    Returns:
        The name of the stretched output.
    """
    node = next(n for n in graph.node if n.name == layer)
    stored = constants(graph)
    kernel = numpy_helper.to_array(stored[node.input[1]])
    bias = numpy_helper.to_array(stored[node.input[2]]) if len(node.input) > 2 else 0 * low
    step = np.maximum((high - low) / LEVELS, 1e-6).astype(np.float32)
    axis = 0 if node.op_type == "Conv" or _transposed(node) else 1
    shape = [-1 if i == axis else 1 for i in range(kernel.ndim)]
    behind = (1, -1, 1, 1) if node.op_type == "Conv" else (1, -1)
    levels, stretched = f"{output}.levels", f"{output}.stretched"
    new = {
        f"{levels}.kernel": kernel / step.reshape(shape),
        f"{levels}.bias": (bias - low) / step,
        f"{levels}.step": step.reshape(behind),
        f"{levels}.low": low.reshape(behind),
    }
    for name, values in new.items():
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    node.input[:] = [node.input[0], f"{levels}.kernel", f"{levels}.bias"]
    node.output[0] = levels
    undo = [
        helper.make_node("Mul", [levels, f"{levels}.step"], [stretched], f"{layer}.mul"),
        helper.make_node("Add", [stretched, f"{levels}.low"], [output], f"{layer}.add"),
    ]
    nodes = list(graph.node)
    place = nodes.index(node) + 1
    set_nodes(graph, [*nodes[:place], *undo, *nodes[place:]])
    return levels


def _transposed(node: Any) -> bool:
    return any(a.name == "transB" and a.i for a in node.attribute)


def _skip_image(graph: Any, region: Region) -> None:
    """Take out what rounds the pixels to the 8-bit numbers that they are."""
    around = {n.output[0]: n for n in graph.node if n.op_type == "QuantizeLinear"}
    rounded = {
        n.output[0]: around[n.input[0]].input[0]
        for n in graph.node
        if n.op_type == "DequantizeLinear"
        and n.input[0] in around
        and around[n.input[0]].input[0] in region.images
    }
    for node in graph.node:
        node.input[:] = [rounded.get(name, name) for name in node.input]
    gone = set(rounded) | {name for name, q in around.items() if q.input[0] in region.images}
    set_nodes(graph, [n for n in graph.node if n.output[0] not in gone])


def _shield(graph: Any, region: Region) -> None:
    """Keep onnxruntime from quantising what stays float32.

    Where a convolution in float32 lies between DequantizeLinear and QuantizeLinear, onnxruntime
    quantises its kernel when it loads the graph, and with one scale for all channels. A leaky Relu
    of slope 1, which changes nothing and which no optimiser takes out, hides the first of them.
    """
    int8 = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"} | region.images
    nodes = []
    for node in graph.node:
        if node.name in region.float_layers and node.input[0] in int8:
            same = f"{node.name}.input"
            nodes.append(helper.make_node("LeakyRelu", [node.input[0]], [same], same, alpha=1.0))
            node.input[0] = same
        nodes.append(node)
    set_nodes(graph, nodes)
