"""ONNX files, as far as they hold weights: the initializers, and which convolution uses which.

Read from the wire, with the numbers of the fields in ONNX's ``onnx.proto``: the base install
has no onnx, and a stranger's file costs no more memory than it has bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError

# ---- Protocol Buffers on the wire: the fields of a message, and nothing of its schema

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types; 3 and 4 are groups, long out of use."""
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
MAX_VARINT_BYTES = 10
MAX_NAME_BYTES = 1000
MAX_AXES = 32
"""As many as Caffe has (kMaxBlobAxes)."""
Floats = NDArray[np.float32]


class Field(NamedTuple):
    """One field of a message: its number and wire type, the bytes of its value in the file, and a varint's value."""

    number: int
    wire: int
    start: int
    stop: int
    value: int


class WireReader:
    """Reads the fields of the messages in one file: its bytes, its path, and what it ought to be, for the errors.

    Every method raises ``ModelError`` where the bytes are not what is asked for.
    """

    def __init__(self, content: bytes, path: Path, kind: str) -> None:
        self.content = content
        self._path, self._kind = path, kind

    def error(self, at: int, what: str) -> ModelError:
        """The sentence for damage at byte ``at``."""
        return ModelError(
            f"{self._path}: not {self._kind}, or a damaged one: {what} at byte {at} of {len(self.content)}"
        )

    def fields(self, start: int = 0, stop: int | None = None) -> Iterator[Field]:
        """The fields between two bytes: of the whole file, or of the message that a field holds."""
        stop = len(self.content) if stop is None else stop
        at = start
        while at < stop:
            here = at
            key, at = self.varint(at, stop)
            number, wire = key >> 3, key & 7
            value, first = 0, at
            if wire == VARINT:
                value, at = self.varint(at, stop)
            elif wire == BYTES:
                length, first = self.varint(at, stop)
                at = first + length
            elif wire in FIXED_SIZES:
                at += FIXED_SIZES[wire]
            else:
                raise self.error(here, f"unknown wire type {wire}")
            if not number:
                raise self.error(here, "a field without number")
            if at > stop:
                raise self.error(here, f"a field of {at - first} bytes where {stop - first} are")
            yield Field(number, wire, first, at, value)

    def varint(self, at: int, stop: int) -> tuple[int, int]:
        """An unsigned number of seven bits a byte, lowest first, ten bytes at most; and where it ends."""
        value = 0
        for shift, byte in enumerate(self.content[at : min(at + MAX_VARINT_BYTES, stop)]):
            value |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:
                return value, at + shift + 1
        raise self.error(at, "a number that does not end")

    def name(self, field: Field) -> str:
        """The value of a field that is a name; what is no UTF-8 is escaped."""
        size = field.stop - field.start
        if size > MAX_NAME_BYTES:
            raise self.error(field.start, f"a name of {size} bytes")
        return self.content[field.start : field.stop].decode("utf-8", "backslashreplace")

    def numbers(self, field: Field) -> Iterator[int]:
        """The numbers of a repeated varint field, packed or not."""
        if field.wire == VARINT:
            yield field.value
            return
        at = field.start
        while at < field.stop:
            value, at = self.varint(at, field.stop)
            yield value

    def add_axes(self, shape: list[int], field: Field) -> None:
        """Append the axes in a field to a shape, at most as many as any array has."""
        for size in self.numbers(field):
            shape.append(size)
            if len(shape) > MAX_AXES:
                raise self.error(field.start, f"an array of more than {MAX_AXES} axes")

    def array(self, what: str, at: int, values: bytearray, dtype: np.dtype[Any], shape: Sequence[int]) -> Floats:
        """The values of an array that begins at byte ``at``, as float32; just as many bytes as the shape needs."""
        hollow = len(shape) > 1 and 0 in shape  # 0 x anything has no bytes; only (0,) is in use
        if hollow or len(values) != math.prod(shape) * dtype.itemsize:
            declared = "x".join(map(str, shape)) or "one number"
            raise self.error(at, f"{what} declares {declared} and holds {len(values)} bytes")
        with np.errstate(all="ignore"):  # a double too large for float32 becomes infinite
            return np.frombuffer(values, dtype).astype(np.float32, copy=False).reshape(shape)


# ---- ONNX

MAX_PARTS = 100_000
"""Of nodes and tensors together; ResNet-152 has about a thousand."""

GRAPH = 7  # field of ModelProto
NODE, INITIALIZER = 1, 5  # of GraphProto
INPUT, OP_TYPE = 1, 4  # of NodeProto
DIMS, DATA_TYPE, FLOAT_DATA, INT32_DATA, NAME, RAW_DATA, DOUBLE_DATA = 1, 2, 4, 5, 8, 9, 10  # of TensorProto
FLOATS: dict[int, tuple[np.dtype[Any], int]] = {
    1: (np.dtype("<f4"), FLOAT_DATA),
    10: (np.dtype("<f2"), INT32_DATA),  # a whole number for the bits of each
    11: (np.dtype("<f8"), DOUBLE_DATA),
}
"""TensorProto.DataType FLOAT, FLOAT16, DOUBLE: their type, and the field for values that are not in ``raw_data``."""


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """What matters of a graph here.

    Attributes:
        tensors: the initializers of floats by name, float32.
        convolutions: the input names of each node ``Conv``, in the order of the graph.
    """

    tensors: Mapping[str, Floats]
    convolutions: tuple[tuple[str, ...], ...]


def read_graph(content: bytes, path: Path) -> Graph:
    """The initializers and convolutions of an ONNX model.

    Raises:
        ModelError: the bytes are no ONNX model, or a damaged one, or it has no convolution.
    """
    reader = WireReader(content, path, "an ONNX file")
    tensors: dict[str, Floats] = {}
    convolutions: list[tuple[str, ...]] = []
    parts = 0
    for graph in reader.fields():
        if graph.number != GRAPH or graph.wire != BYTES:
            continue
        for field in reader.fields(graph.start, graph.stop):
            parts += 1
            if parts > MAX_PARTS:
                raise reader.error(field.start, f"more than {MAX_PARTS} nodes and tensors")
            if field.number == NODE and field.wire == BYTES:
                inputs = _convolution(reader, field)
                convolutions += [inputs] if inputs else []
            elif field.number == INITIALIZER and field.wire == BYTES:
                name, tensor = _tensor(reader, field)
                tensors |= {name: tensor} if tensor is not None else {}
    if not convolutions:
        raise ModelError(f"{path}: not an ONNX file with a convolution")
    return Graph(tensors, tuple(convolutions))


def _convolution(reader: WireReader, node: Field) -> tuple[str, ...]:
    """The first three inputs of a node that is a convolution with weights, or nothing."""
    operator = ""
    inputs: list[str] = []
    for field in reader.fields(node.start, node.stop):
        if field.number == OP_TYPE and field.wire == BYTES:
            operator = reader.name(field)
        elif field.number == INPUT and field.wire == BYTES and len(inputs) < 3:
            inputs.append(reader.name(field))
    return tuple(inputs) if operator == "Conv" and len(inputs) > 1 and inputs[1] else ()


def _tensor(reader: WireReader, tensor: Field) -> tuple[str, Floats | None]:
    """Name and numbers of a TensorProto; no numbers if they are no floats."""
    name, kind = "", 0
    shape: list[int] = []
    values = {number: bytearray() for number in (RAW_DATA, FLOAT_DATA, INT32_DATA, DOUBLE_DATA)}
    for field in reader.fields(tensor.start, tensor.stop):
        if field.number == NAME and field.wire == BYTES:
            name = reader.name(field)
        elif field.number == DATA_TYPE and field.wire == VARINT:
            kind = field.value
        elif field.number == DIMS and field.wire in (VARINT, BYTES):
            reader.add_axes(shape, field)
        elif field.number == INT32_DATA:
            values[INT32_DATA] += np.fromiter((n & 0xFFFF for n in reader.numbers(field)), "<u2").tobytes()
        elif field.number in values:
            values[field.number] += memoryview(reader.content)[field.start : field.stop]
    if kind not in FLOATS:
        return name, None
    dtype, typed = FLOATS[kind]
    content = values[RAW_DATA] or values[typed]
    return name, reader.array(f"the tensor {name[:80]!r}", tensor.start, content, dtype, shape)
