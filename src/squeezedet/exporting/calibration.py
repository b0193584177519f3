"""What int8 needs to know of a float graph: its int8 part, and the range of every activation on real images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from squeezedet.errors import DataError, ModelError, UsageError
from squeezedet.media.images import read_image
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines.engine import INPUT, first_line
from squeezedet.runtime.parity import input_pixels

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


def choose_ranges(images: Sequence[Path]) -> list[Path]:
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


def inputs(model: Bundle, images: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """(1, H, W, 3) uint8 pixels of each image, in the size that the runtime gives it.

    Raises:
        DataError: an image cannot be read.
    """
    for path in images:
        yield input_pixels(read_image(path), model)[None]


class Runner:
    """Runs a graph, and gives any of its tensors.

    Args:
        network: an ``onnx.ModelProto``; not changed.
        names: the tensors wanted.
    """

    def __init__(self, network: Any, names: Sequence[str]) -> None:
        from squeezedet.runtime.engines.onnxruntime import import_onnxruntime

        onnxruntime = import_onnxruntime()

        self._names = list(names)
        asked = onnx.ModelProto()
        asked.CopyFrom(network)
        del asked.graph.output[:]
        for name in self._names:
            asked.graph.output.append(onnx.ValueInfoProto(name=name))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                asked.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(f"onnxruntime cannot run the graph: {first_line(error)}") from error

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
