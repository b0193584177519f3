"""A published ONNX graph of one size made one of another size, or of int8."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, version_converter

from squeezedet.errors import UsageError
from squeezedet.runtime.engines.onnxruntime import import_onnxruntime

STRIDES = (8, 16, 32)
QDQ_OPSET = 13
"""The first in which a kernel has a scale for each output channel."""
Size = tuple[int, int]


def resize_graph(graph: bytes, size: Size) -> bytes:
    """Change the size of the input, and with it that of the maps that Reshape nodes name.

    The maps of strides 8, 16 and 32 of the old size become those of the new one; Reshape nodes of
    other sizes stay as they are.

    Args:
        graph: ONNX bytes; the first input is (1, 3, height, width).
        size: (width, height), multiples of 32.

    Raises:
        UsageError: a side is no multiple of 32.
    """
    width, height = size
    if width % STRIDES[-1] or height % STRIDES[-1] or min(size) <= 0:
        raise UsageError(f"a peer's input must have sides that are multiples of {STRIDES[-1]}, not {width}x{height}")
    model = onnx.load_from_string(graph)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    old_height, old_width = dims[2].dim_value, dims[3].dim_value
    dims[2].dim_value, dims[3].dim_value = height, width
    maps = {(old_height // s, old_width // s): (height // s, width // s) for s in STRIDES}
    for tensor in _reshape_constants(model.graph):
        shape = numpy_helper.to_array(tensor)
        new = maps.get(tuple(shape[-2:].tolist()))
        if len(shape) >= 4 and new:
            changed = np.array([*shape[:-2], *new], np.int64)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return bytes(model.SerializeToString())


def without_weight_inputs(graph: bytes) -> bytes:
    """Weights that old exporters also list as inputs are made constants, which engines can fold."""
    model = onnx.load_from_string(graph)
    _drop_weight_inputs(model)
    return bytes(model.SerializeToString())


def _drop_weight_inputs(model: Any) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [port for port in model.graph.input if port.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)  # before, weights had to be inputs


def _reshape_constants(graph: Any) -> Iterator[Any]:
    """The constant shapes of a graph's Reshape nodes, each once."""
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    yield from (tensor for tensor in graph.initializer if tensor.name in shapes)
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in shapes:
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")


def quantize_graph(graph: bytes, tensors: Iterable[NDArray[np.float32]]) -> bytes:
    """Quantize by onnxruntime's own tool, as our networks are: int8 kernels, uint8 activations.

    Kernels have 7 bits and a scale for each channel. The last convolutions and what decodes them
    stay float32: their outputs hold logits and distances of one scale.

    Args:
        graph: ONNX bytes in float.
        tensors: (1, 3, H, W) inputs to calibrate on.

    Raises:
        Exception: whatever onnx or onnxruntime say of a graph that they cannot quantize.
    """
    import_onnxruntime()  # with its telemetry off
    from onnxruntime.quantization import QuantType, quantize_static

    model = version_converter.convert_version(onnx.load_from_string(graph), QDQ_OPSET)
    _drop_weight_inputs(model)
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}.{i}"
    with tempfile.TemporaryDirectory(prefix="squeezedet-") as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            _Calibration(model.graph.input[0].name, tensors),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_tail(model.graph),
        )
        return path.read_bytes()


def _tail(graph: Any) -> list[str]:
    """The nodes with no convolution behind them: the last convolutions, and the decoding."""
    needed: set[str] = set()  # tensors that a convolution needs
    names = []
    for node in reversed(graph.node):
        feeds = not needed.isdisjoint(node.output)
        if feeds or node.op_type == "Conv":
            needed.update(node.input)
        if not feeds:
            names.append(node.name)
    return names


class _Calibration:
    """What onnxruntime's quantizer asks for its inputs."""

    def __init__(self, name: str, tensors: Iterable[NDArray[np.float32]]) -> None:
        self._name, self._tensors = name, iter(tensors)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        tensor = next(self._tensors, None)
        return None if tensor is None else {self._name: tensor}
