"""From a float model to an int8 one: a graph made ready, its int8 part, the ranges of activations, quantization."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from squeezedet.errors import DataError, ModelError, UsageError
from squeezedet.exporting.graph import open_session, transform_graph
from squeezedet.media.images import read_image
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines import INPUT
from squeezedet.runtime.parity import input_pixels, is_int8

# ------------------------------------------------------------ a float graph made ready; it computes the same

PREFIX, SUFFIX = "detector.", ".weight"
"""Around the name of a layer in the name of its kernel, as the exporter writes it."""
IMAGE_SCALE, IMAGE_ZERO = "images.scale", "images.zero_point"


def prepare(graph: bytes) -> Any:
    """Read a graph and rewrite what would keep engines from running it in int8.

    - Kernels stored as float16 behind a Cast become float32.
    - ``Concat, Relu`` becomes ``Relu, Concat``: each convolution then has its Relu behind it, and
      both engines make one int8 operation of the two.
    - ``images, Transpose, Cast`` becomes ``images, DequantizeLinear (scale 1), Transpose``: pixels
      are 8-bit numbers already. OpenVINO runs the first convolution in int8 with this order only.
    - Layers are named as in the network ("backbone.fire2.squeeze1x1"), all other nodes by number.

    Args:
        graph: ONNX bytes.

    Returns:
        An ``onnx.ModelProto`` with the types of all tensors that could be inferred.
    """
    model = onnx.load_from_string(graph)
    _fold_casts(model.graph)
    _relu_first(model.graph)
    _image_as_quantized(model.graph)
    _name(model.graph)
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)


def users(graph: Any) -> dict[str, list[Any]]:
    """Tensor -> the nodes that read it."""
    found = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            found[name].append(node)
    return found


def constants(graph: Any) -> dict[str, Any]:
    """The initializers by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def set_nodes(graph: Any, nodes: list[Any]) -> None:
    """Replace all nodes of a graph."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _fold_casts(graph: Any) -> None:
    stored = constants(graph)
    nodes = []
    for node in graph.node:
        tensor = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if tensor is None or tensor.data_type != TensorProto.FLOAT16:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    set_nodes(graph, nodes)


def _relu_first(graph: Any) -> None:
    readers = users(graph)
    outputs = {port.name for port in graph.output}
    nodes, moved = [], set()
    for node in graph.node:
        if node.op_type == "Relu" and node.output[0] in moved:
            continue
        behind = readers[node.output[0]] if node.op_type == "Concat" else []
        alone = len(behind) == 1 and behind[0].op_type == "Relu" and node.output[0] not in outputs
        if alone:
            for i, name in enumerate(node.input):
                nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
                node.input[i] = f"{name}.relu"
            node.output[0] = behind[0].output[0]
            moved.add(node.output[0])
        nodes.append(node)
    set_nodes(graph, nodes)


def _image_as_quantized(graph: Any) -> None:
    readers = users(graph)
    for node in graph.node:
        cast = readers[node.output[0]][0] if readers[node.output[0]] else None
        if node.op_type != "Transpose" or list(node.input) != [INPUT] or cast is None:
            continue
        if len(readers[node.output[0]]) > 1 or cast.op_type != "Cast":
            continue
        transposed = cast.output[0]
        cast.CopyFrom(helper.make_node("DequantizeLinear", [INPUT, IMAGE_SCALE, IMAGE_ZERO], [node.output[0]]))
        node.input[0], node.output[0] = node.output[0], transposed
        graph.initializer.extend(
            [
                numpy_helper.from_array(np.array(1, np.float32), IMAGE_SCALE),
                numpy_helper.from_array(np.array(0, np.uint8), IMAGE_ZERO),
            ]
        )
        others = [n for n in graph.node if n not in (cast, node)]
        set_nodes(graph, [cast, node, *others])
        return


def _name(graph: Any) -> None:
    stored = constants(graph)
    taken: set[str] = set()
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}.{i}"
        if node.op_type in ("Conv", "Gemm") and node.input[1] in stored:
            layer = node.input[1].removeprefix(PREFIX).removesuffix(SUFFIX)
            node.name = layer if layer not in taken else f"{layer}.{i}"
            taken.add(node.name)


# ------------------------------------------------------------ which part computes in int8

LAYERS = ("Conv", "Gemm")
BETWEEN = (*("Relu", "LeakyRelu", "Clip", "MaxPool", "AveragePool", "Concat", "Add", "Flatten"), "Resize")
"""Operations that both engines have in int8, and that lose little by it."""
SAME_SCALE = ("MaxPool", "Concat", "Flatten", "Resize")
"""They copy numbers: with one scale before and behind them nothing is rounded again."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """The int8 part of a graph.

    Attributes:
        layers: names of the layers with weights, in the order of the graph.
        nodes: all int8 nodes by name, layers among them.
        heads: output of each layer that nothing in the region reads -> the layer.
        float_layers: layers with weights that were left out.
        scale_of: activation -> the name of its scale, which those share that hold the same numbers.
        measured: activations to be measured -> the scale that must fit them.
        images: tensors that hold the pixels themselves, as float32.
    """

    layers: tuple[str, ...]
    nodes: frozenset[str]
    heads: dict[str, str]
    float_layers: tuple[str, ...]
    scale_of: dict[str, str]
    measured: dict[str, str]
    images: frozenset[str]


def find_region(graph: Any, keep_float: Sequence[str] = ()) -> Region:
    """Find the int8 part: layers, and operations between them that read int8 alone.

    What lies behind the last layers, the decoding, is never in it.

    Args:
        graph: of ``prepare``.
        keep_float: names of layers that stay float32, with wildcards.

    Raises:
        UsageError: there is no layer of such a name.
        ModelError: there is nothing to quantize.
    """
    names = layer_names(graph)
    kept = _matching(names, keep_float)
    if len(kept) == len(names):
        raise ModelError("no convolution is left to quantize")
    nodes = _nodes(graph, kept)
    inside = [node for node in graph.node if node.name in nodes]
    readers = users(graph)
    layers = tuple(node.name for node in inside if node.op_type in LAYERS)
    heads = {
        node.output[0]: node.name
        for node in inside
        if node.op_type in LAYERS and not any(r.name in nodes for r in readers[node.output[0]])
    }
    images = _images(graph)
    scale_of, copied = _shared_scales(graph, inside, images)
    return Region(
        layers=layers,
        nodes=frozenset(nodes),
        heads=heads,
        float_layers=tuple(name for name in names if name in kept),
        scale_of=scale_of,
        measured={name: scale for name, scale in scale_of.items() if name not in copied},
        images=images,
    )


def layer_names(graph: Any) -> list[str]:
    """The layers with constant weights, in the order of the graph."""
    stored = constants(graph)
    return [n.name for n in graph.node if n.op_type in LAYERS and n.input[1] in stored]


def _matching(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    kept = set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            close = get_close_matches(pattern, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
            raise UsageError(f"`keep_float`: no layer {pattern!r} ({hint})")
        kept |= found
    return kept


def _nodes(graph: Any, kept: set[str]) -> set[str]:
    """Names of the int8 nodes: forwards what reads int8 alone, backwards what a layer needs."""
    stored, readers = constants(graph), users(graph)
    layers = set(layer_names(graph))
    nodes: set[str] = set()
    int8: set[str] = set()
    for node in graph.node:
        read = [name for name in node.input if name and name not in stored]
        between = node.op_type in BETWEEN and read and all(name in int8 for name in read)
        if between or (node.name in layers and node.name not in kept):
            nodes.add(node.name)
            int8.update(node.output)
    needed: set[str] = set()
    for node in reversed(graph.node):
        behind = (r.name for name in node.output for r in readers[name])
        if node.name in layers or (node.op_type in BETWEEN and not needed.isdisjoint(behind)):
            needed.add(node.name)
    return nodes & needed


def _images(graph: Any) -> frozenset[str]:
    """The pixels as ``prepare`` leaves them: behind DequantizeLinear and Transpose."""
    raw = {n.output[0] for n in graph.node if IMAGE_SCALE in n.input}
    return frozenset(n.output[0] for n in graph.node if n.op_type == "Transpose" and n.input[0] in raw)


def _shared_scales(graph: Any, inside: Sequence[Any], images: frozenset[str]) -> tuple[dict[str, str], set[str]]:
    """Each activation of the region -> its scale; and those that another one holds as well."""
    stored, readers = constants(graph), users(graph)
    parent: dict[str, str] = {}
    copied: set[str] = set()

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in inside:
        read = [n for n in node.input if n and n not in stored and n not in images]
        for name in (*read, *node.output):
            root(name)
        # A Relu becomes part of what is before it.
        absorbed = node.op_type == "Relu" and len(readers[read[0]]) == 1
        if absorbed or node.op_type in SAME_SCALE:
            for name in read:
                parent[root(name)] = root(node.output[0])
                copied.add(name)
    return {name: root(name) for name in parent}, copied


# ------------------------------------------------------------ ranges

AT_LEAST, AT_MOST = 16, 64
"""So many images are needed, and of more so many are taken, evenly spaced."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """What activations were seen to hold.

    Attributes:
        tensor: activation -> (lowest, highest) that its scale must reach.
        channels: output of a head -> (C,) lowest and (C,) highest of each channel.
    """

    tensor: Mapping[str, tuple[float, float]]
    channels: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def choose_images(images: Sequence[Path]) -> list[Path]:
    """The images to calibrate on: all, or ``AT_MOST`` evenly spaced.

    Raises:
        DataError: there are too few.
    """
    if len(images) < AT_LEAST:
        have = "no image" if not images else f"only {len(images)} image{'s' * (len(images) > 1)}"
        raise DataError(
            f"{have} to calibrate int8 on: at least {AT_LEAST} are needed, like those that the camera will see"
        )
    step = max(1.0, len(images) / AT_MOST)
    return [images[int(i * step)] for i in range(min(len(images), AT_MOST))]


class Runner:
    """Runs a graph, an ``onnx.ModelProto`` that is not changed, and gives any of its tensors."""

    def __init__(self, network: Any, names: Sequence[str]) -> None:
        self._names = list(names)
        asked = onnx.ModelProto()
        asked.CopyFrom(network)
        del asked.graph.output[:]
        asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        self._session = open_session(asked.SerializeToString())

    def run(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """(1, H, W, 3) pixels to the wanted tensors."""
        return dict(zip(self._names, self._session.run(self._names, {INPUT: pixels}), strict=True))


def measure(network: Any, region: Region, pixels: Iterable[NDArray[np.uint8]]) -> Ranges:
    """Run the float graph and find the lowest and the highest number of each activation; zero is always between them.

    Args:
        network: of ``prepare``.
        region: what will compute in int8.
        pixels: of the calibration images.

    Raises:
        ModelError: an activation is not finite.
    """
    runner = Runner(network, list(dict.fromkeys([*region.measured, *region.heads])))
    spans = dict.fromkeys(region.measured.values(), (0.0, 0.0))
    channels: dict[str, tuple[Any, Any]] = {}
    for image in pixels:
        found = runner.run(image)
        for name, scale in region.measured.items():
            if not np.isfinite(found[name]).all():
                raise ModelError(f"the model gives numbers that are not finite in {name!r}")
            low, high = spans[scale]
            spans[scale] = min(low, float(found[name].min())), max(high, float(found[name].max()))
        for name in region.heads:
            values = found[name].astype(np.float32, copy=False)
            axes = tuple(i for i in range(values.ndim) if i != 1)
            least, most = values.min(axis=axes), values.max(axis=axes)
            before = channels.get(name, (least, most))
            channels[name] = np.minimum(before[0], least), np.maximum(before[1], most)
    return Ranges({name: spans[scale] for name, scale in region.scale_of.items()}, channels)


# ------------------------------------------------------------ quantization

LEVELS = 255
"""The highest 8-bit number."""
IN_LEVELS = ".levels"
"""Behind the name of a head's kernel that gives 0 to 255, see ``_in_levels``."""


def with_qdq(network: Any, region: Region, ranges: Ranges) -> Any:
    """Quantize: int8 weights with a scale for each output channel, uint8 activations.

    Weights take 7 of the 8 bits, -64 to 64: the product of two pairs with uint8 then fits in the
    16 bits of x86 processors without VNNI, which would saturate without a word.

    Args:
        network: of ``prepare``; not changed.
        region: what computes in int8.
        ranges: of its activations, measured.

    Returns:
        The quantized ``onnx.ModelProto``.
    """
    from squeezedet.runtime.engines import import_onnxruntime

    import_onnxruntime()  # with its telemetry off
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData

    model = onnx.ModelProto()
    model.CopyFrom(network)
    spans = dict(ranges.tensor) | dict.fromkeys(region.images, (0.0, float(LEVELS)))
    for output, layer in region.heads.items():
        spans[_in_levels(model.graph, output, layer, *ranges.channels[output])] = (0.0, LEVELS)
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
    """Let a head give 0 to 255 in each of its channels, and undo that in float32 behind it, where ``output`` is again.

    An int8 output has one scale. The channels of a head, logits and deltas, have ranges of their
    own, (C,) from ``low`` to ``high``; so each is stretched to all 256 levels by the kernel and the bias.
    Returns the name of the stretched output.
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


def _channel_axis(node: Any) -> int:
    """The axis of a layer's kernel that its output channels are on."""
    return 0 if node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute) else 1


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
    chosen = choose_images(images)
    network = prepare(model.graph)
    region = find_region(network.graph, keep_float)
    say(f"int8: {len(region.layers)} layers, calibrated on {len(chosen)} images")
    ranges = measure(network, region, (input_pixels(read_image(path), model)[None] for path in chosen))
    if region.float_layers:
        say(f"float32: {', '.join(region.float_layers)}")
    quantized = with_qdq(network, region, ranges)
    note = {
        "images": len(chosen),
        "method": "minmax",
        "layers": len(region.layers),
        "float_layers": list(region.float_layers),
    }
    made = transform_graph(model, bytes(quantized.SerializeToString()), int8=note)
    return replace(made, card=replace(made.card, results={}))
