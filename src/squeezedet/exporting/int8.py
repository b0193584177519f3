"""From a float model to an int8 one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from squeezedet.errors import UsageError
from squeezedet.exporting.calibration import (
    BETWEEN,
    LAYERS,
    Ranges,
    Region,
    choose_ranges,
    constants,
    find_region,
    inputs,
    measure,
    prepare,
    set_nodes,
)
from squeezedet.exporting.graph import transform_graph
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.parity import is_int8

LEVELS = 255
"""The highest 8-bit number."""
IN_LEVELS = ".levels"
"""Behind the name of a head's kernel that gives 0 to 255, see ``_in_levels``."""
WEIGHT_BITS = 7


def with_qdq(network: Any, region: Region, ranges: Ranges, weight_bits: int = WEIGHT_BITS) -> Any:
    """Quantize: int8 weights with a scale for each output channel, uint8 activations.

    Weights take 7 of the 8 bits, -64 to 64: the product of two pairs with uint8 then fits in the
    16 bits of x86 processors without VNNI, which would saturate without a word.

    Args:
        network: of ``prepare``; not changed.
        region: what computes in int8.
        ranges: of its activations, measured.
        weight_bits: with fewer than 7, weights are multiples of 2, 4, ...: not faster, but smaller once coded.

    Returns:
        The quantized ``onnx.ModelProto``.
    """
    from squeezedet.runtime.engines.onnxruntime import import_onnxruntime

    import_onnxruntime()  # with its telemetry off
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData

    model = onnx.ModelProto()
    model.CopyFrom(network)
    spans = dict(ranges.tensor) | dict.fromkeys(region.images, (0.0, float(LEVELS)))
    for output, layer in region.heads.items():
        spans[_in_levels(model.graph, output, layer, *ranges.channels[output])] = (0.0, LEVELS)
    if weight_bits < WEIGHT_BITS:
        _coarsen(model.graph, region.layers, weight_bits)
    model = onnx.shape_inference.infer_shapes(model)
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in spans.items()},
        ),
        nodes_to_quantize=sorted(region.nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=[*LAYERS, *BETWEEN],
        extra_options={},
    )
    quantizer.quantize_model()
    _skip_image(quantizer.model.model.graph, region)
    _shield(quantizer.model.model.graph, region)
    quantizer.model.topological_sort()
    quantizer.model.clean_initializers()
    quantized = quantizer.model.model
    del quantized.graph.value_info[:]
    onnx.checker.check_model(quantized)
    return quantized


def _in_levels(graph: Any, output: str, layer: str, low: NDArray[np.float32], high: NDArray[np.float32]) -> str:
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
    axis = _channel_axis(node)
    shape = [-1 if i == axis else 1 for i in range(kernel.ndim)]
    behind = (1, -1, 1, 1) if node.op_type == "Conv" else (1, -1)
    levels, stretched, kernel_name = f"{output}.levels", f"{output}.stretched", node.input[1]
    new = {
        f"{kernel_name}{IN_LEVELS}": kernel / step.reshape(shape),
        f"{kernel_name}.offset": (bias - low) / step,
        f"{kernel_name}.step": step.reshape(behind),
        f"{kernel_name}.low": low.reshape(behind),
    }
    for name, values in new.items():
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    node.input[:] = [node.input[0], f"{kernel_name}{IN_LEVELS}", f"{kernel_name}.offset"]
    node.output[0] = levels
    undo = [
        helper.make_node("Mul", [levels, f"{kernel_name}.step"], [stretched], f"{layer}.mul"),
        helper.make_node("Add", [stretched, f"{kernel_name}.low"], [output], f"{layer}.add"),
    ]
    nodes = list(graph.node)
    place = nodes.index(node) + 1
    set_nodes(graph, [*nodes[:place], *undo, *nodes[place:]])
    return levels


def dequantize(graph: bytes) -> dict[str, NDArray[np.float32]]:
    """The float tensors of a graph that ``with_qdq`` made, by the names that they had in the float one.

    Kernels come back rounded to 7 bits a number.
    """
    model = onnx.load_from_string(graph)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {name: values for name, values in stored.items() if values.dtype == np.float32}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or any(name not in stored for name in node.input):
            continue
        numbers, scale, zero = (stored[name] for name in node.input)
        shape = (-1, *[1] * (numbers.ndim - 1)) if scale.size > 1 else ()
        values = (numbers.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
        found[node.input[0].removesuffix("_quantized")] = values.astype(np.float32)
    for name in [name for name in found if name.endswith(IN_LEVELS)]:
        kernel_name = name.removesuffix(IN_LEVELS)
        step = found[f"{kernel_name}.step"].ravel()
        found[kernel_name] = found[name] * step.reshape(-1, *[1] * (found[name].ndim - 1))
        bias = found[f"{kernel_name}.offset"] * step + found[f"{kernel_name}.low"].ravel()
        found[kernel_name.removesuffix("weight") + "bias"] = bias
    return found


def _coarsen(graph: Any, layers: Sequence[str], bits: int) -> None:
    """Round the kernels of layers to so many bits a weight, with a step for each output channel."""
    stored = constants(graph)
    for node in graph.node:
        if node.name not in layers:
            continue
        kernel = numpy_helper.to_array(stored[node.input[1]])
        channels = kernel if _channel_axis(node) == 0 else kernel.T
        highest = np.abs(channels).max(axis=tuple(range(1, kernel.ndim)), keepdims=True)
        step = np.maximum(highest, np.finfo(np.float32).tiny) / (1 << (bits - 1))
        rounded = np.round(channels / step) * step
        rounded = rounded if _channel_axis(node) == 0 else rounded.T
        stored[node.input[1]].CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), node.input[1]))


def _channel_axis(node: Any) -> int:
    """The axis of a layer's kernel that its output channels are on."""
    return 0 if node.op_type == "Conv" or _transposed(node) else 1


def _transposed(node: Any) -> bool:
    return any(a.name == "transB" and a.i for a in node.attribute)


def _skip_image(graph: Any, region: Region) -> None:
    """Take out what rounds the pixels to the 8-bit numbers that they are."""
    around = {n.output[0]: n for n in graph.node if n.op_type == "QuantizeLinear"}
    rounded = {
        n.output[0]: around[n.input[0]].input[0]
        for n in graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in around and around[n.input[0]].input[0] in region.images
    }
    for node in graph.node:
        node.input[:] = [rounded.get(name, name) for name in node.input]
    gone = set(rounded) | {name for name, q in around.items() if q.input[0] in region.images}
    set_nodes(graph, [n for n in graph.node if n.output[0] not in gone])


def _shield(graph: Any, region: Region) -> None:
    """Keep onnxruntime from quantizing what stays float32.

    Where a convolution in float32 lies between DequantizeLinear and QuantizeLinear, onnxruntime
    quantizes its kernel when it loads the graph, and with one scale for all channels. A leaky Relu
    of slope 1, which changes nothing and which no optimizer takes out, hides the first of them.
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


def quantize(
    model: Bundle,
    images: Sequence[Path],
    *,
    keep_float: Sequence[str] = (),
    weight_bits: int = WEIGHT_BITS,
    say: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Quantize a model to int8 after training.

    Everything up to the raw maps of the heads computes in int8, what decodes them in float32.
    The graph keeps its inputs, outputs and sizes; any engine that reads ONNX runs it.

    Args:
        model: with an ONNX graph in float.
        images: to calibrate on, like those that the camera will see and not those that the model
            is judged on; at least 16, and of more than 64 as many, evenly spaced.
        keep_float: names of layers that stay float32, with wildcards ("backbone.fire2.*").
        weight_bits: of a weight, see ``with_qdq``.
        say: takes one line at a time: what is going on.

    Returns:
        The int8 model. Its card says under ``training``, ``export``, ``int8`` how it was made;
        ``results`` is empty, since they were those of the float model.

    Raises:
        UsageError: the model is quantized already, or a layer does not exist.
        DataError: the images are too few, or one cannot be read.
        ModelError: there is nothing to quantize, or the graph cannot be run.
    """
    if model.format != "onnx" or is_int8(model):
        raise UsageError(f"{model.card.name}: int8 is made from a float model with an ONNX graph")
    chosen = choose_ranges(images)
    network = prepare(model.graph)
    region = find_region(network.graph, keep_float)
    say(f"int8: {len(region.layers)} layers, calibrated on {len(chosen)} images")
    ranges = measure(network, region, inputs(model, chosen))
    if region.float_layers:
        say(f"float32: {', '.join(region.float_layers)}")
    quantized = with_qdq(network, region, ranges, weight_bits)
    note = {
        "images": len(chosen),
        "method": "minmax",
        "layers": len(region.layers),
        "float_layers": list(region.float_layers),
        "weight_bits": weight_bits,
    }
    made = transform_graph(model, bytes(quantized.SerializeToString()), int8=note)
    return replace(made, card=replace(made.card, results={}))
