"""From a float model to an int8 one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    Runner,
    choose_ranges,
    constants,
    find_region,
    inputs,
    measure,
    prepare,
    set_nodes,
)
from squeezedet.exporting.onnx import transform_graph
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.parity import is_int8
from squeezedet.text import align

# ---- qdq: QuantizeLinear and DequantizeLinear around the int8 part of a graph.

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


# ---- scan: Which layers suffer from int8: each alone, and what should stay float32.

PICTURES = 4
"""Compared in a scan; each layer is run on all of them."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The error of the raw maps, as a share of their standard deviation (root mean square).

    Attributes:
        alone: layer -> the error with this layer in int8 and all others in float32.
        together: the error with all of them in int8.
    """

    alone: Mapping[str, float]
    together: float

    def worst(self, limit: float) -> tuple[str, ...]:
        """The fewest layers to keep in float32 for an error of at most ``limit``.

        Errors of layers count as independent: their squares add up, and are scaled to what all
        layers do together. At least one layer is quantized.
        """
        ordered = sorted(self.alone, key=lambda layer: self.alone[layer])
        squares = np.cumsum([self.alone[layer] ** 2 for layer in ordered])
        if squares[-1] <= 0:
            return ()
        expected = self.together * np.sqrt(squares / squares[-1])
        return tuple(ordered[max(1, int((expected <= limit).sum())) :])

    def __str__(self) -> str:
        total = sum(error**2 for error in self.alone.values()) or 1.0
        rows = [("layer in int8", "error", "share")]
        for layer, error in sorted(self.alone.items(), key=lambda item: -item[1]):
            rows.append((layer, f"{error:.4f}", f"{error**2 / total:.0%}"))
        rows.append(("all", f"{self.together:.4f}", ""))
        return align(rows)


def scan(model: Bundle, images: Sequence[Path], *, method: str = "minmax") -> Scan:
    """Quantize each layer alone, and all, and compare the raw maps of the heads.

    Args:
        model: in float.
        images: to calibrate on, as for ``quantize``; four of them are compared on.
        method: how ranges are found, see ``calibration.measure``.

    Raises:
        UsageError, DataError, ModelError: as of ``quantize``.
    """
    chosen = choose_ranges(images)
    network = prepare(model.graph)
    region = find_region(network.graph)
    ranges = measure(network, region, inputs(model, chosen), method)
    pictures = list(inputs(model, chosen[:: len(chosen) // PICTURES]))
    return scan_network(network, region, ranges, pictures)


def scan_network(network: Any, region: Region, ranges: Ranges, pixels: Sequence[NDArray[np.uint8]]) -> Scan:
    """See ``scan``.

    Args:
        network: of ``prepare``.
        region: whose layers are scanned.
        ranges: of its activations.
        pixels: to compare on.
    """
    heads = list(region.heads)
    runner = Runner(network, heads)
    wanted = [runner.run(image) for image in pixels]

    def error(layers: Sequence[str]) -> float:
        left_out = [name for name in region.layers if name not in layers]
        part = find_region(network.graph, [*region.float_layers, *left_out])
        quantized = Runner(with_qdq(network, part, ranges), heads)
        return _error([quantized.run(image) for image in pixels], wanted)

    return Scan({layer: error([layer]) for layer in region.layers}, error(region.layers))


def _error(found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> float:
    """Root of the mean over heads of squared error by variance."""
    shares = []
    for head in wanted[0]:
        difference = np.concatenate([(f[head] - w[head]).ravel() for f, w in zip(found, wanted, strict=True)])
        values = np.concatenate([w[head].ravel() for w in wanted])
        shares.append(float(np.square(difference).mean() / max(values.var(), 1e-12)))
    return float(np.sqrt(np.mean(shares)))


# ---- quantize: From a float model to an int8 one.

AUTO = "auto:"
Say = Callable[[str], None]


def quantize(
    model: Bundle,
    images: Sequence[Path],
    *,
    keep_float: Sequence[str] = (),
    method: str = "minmax",
    weight_bits: int = WEIGHT_BITS,
    say: Say | None = None,
) -> Bundle:
    """Quantize a model to int8 after training.

    Everything up to the raw maps of the heads computes in int8, what decodes them in float32.
    The graph keeps its inputs, outputs and sizes; any engine that reads ONNX runs it.

    Args:
        model: with an ONNX graph in float.
        images: to calibrate on, like those that the camera will see and not those that the model
            is judged on; at least 16, and of more than 64 as many, evenly spaced.
        keep_float: names of layers that stay float32, with wildcards ("backbone.fire2.*"), or
            ``auto:0.1``: the layers that a scan finds worst, until the error of the raw maps
            is at most a tenth of their standard deviation.
        method: how ranges are found, see ``calibration.measure``.
        weight_bits: of a weight, see ``with_qdq``.
        say: takes one line at a time: what is going on.

    Returns:
        The int8 model. Its card says under ``training``, ``export``, ``int8`` how it was made;
        ``results`` is empty, since they were those of the float model.

    Raises:
        UsageError: the model is quantized already, or a layer or a method does not exist.
        DataError: the images are too few, or one cannot be read.
        ModelError: there is nothing to quantize, or the graph cannot be run.
    """
    say = say or (lambda _: None)
    if model.format != "onnx" or is_int8(model):
        raise UsageError(f"{model.card.name}: int8 is made from a float model with an ONNX graph")
    limit = _limit(keep_float)
    chosen = choose_ranges(images)
    network = prepare(model.graph)
    region = find_region(network.graph, [name for name in keep_float if not name.startswith(AUTO)])
    say(f"int8: {len(region.layers)} layers, calibrated on {len(chosen)} images ({method})")
    ranges = measure(network, region, inputs(model, chosen), method)
    if limit is not None:
        found = scan_network(network, region, ranges, list(inputs(model, chosen[:: len(chosen) // 4])))
        say(str(found))
        worst = found.worst(limit)
        region = find_region(network.graph, [*region.float_layers, *worst])
    if region.float_layers:
        say(f"float32: {', '.join(region.float_layers)}")
    quantized = with_qdq(network, region, ranges, weight_bits)
    note = {
        "images": len(chosen),
        "method": method,
        "layers": len(region.layers),
        "float_layers": list(region.float_layers),
        "weight_bits": weight_bits,
    }
    made = transform_graph(model, bytes(quantized.SerializeToString()), int8=note)
    return replace(made, card=replace(made.card, results={}))


def _limit(keep_float: Sequence[str]) -> float | None:
    """The number of ``auto:0.1``.

    Raises:
        UsageError: it is none.
    """
    asked = [name.removeprefix(AUTO) for name in keep_float if name.startswith(AUTO)]
    if not asked:
        return None
    try:
        limit = float(asked[-1])
    except ValueError:
        limit = -1.0
    if not 0 < limit < 1:
        raise UsageError(f"--keep-float {AUTO}{asked[-1]}: write a number between 0 and 1")
    return limit
