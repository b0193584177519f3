"""An ONNX file of one integer matrix product, written by hand: the base install has no onnx.

Field numbers are those of onnx.proto; a message is a run of fields, each a key (number x 8 + kind)
and a number or so many bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VARINT, BYTES = 0, 2
UINT8, INT8, INT32 = 2, 3, 6
IR_VERSION, OPSET = 8, 13
INPUT, OUTPUT, WEIGHT = "a", "y", "b"


def integer_product(rows: int, weight: NDArray[np.int8]) -> bytes:
    """A model of ``y = a b``: a (rows, K) uint8, b (K, N) int8 inside the file, y (rows, N) int32.

    Args:
        rows: of the input.
        weight: b.
    """
    inner, columns = weight.shape
    node = _field(1, INPUT) + _field(1, WEIGHT) + _field(2, OUTPUT) + _field(4, "MatMulInteger")
    tensor = b"".join(_field(1, side) for side in weight.shape)
    tensor += _field(2, INT8) + _field(8, WEIGHT) + _field(9, weight.tobytes())
    graph = (
        _field(1, node)
        + _field(2, "product")
        + _field(5, tensor)
        + _field(11, _value(INPUT, UINT8, rows, inner))
        + _field(12, _value(OUTPUT, INT32, rows, columns))
    )
    return _field(1, IR_VERSION) + _field(7, graph) + _field(8, _field(1, "") + _field(2, OPSET))


def _value(name: str, kind: int, *shape: int) -> bytes:
    sides = b"".join(_field(1, _field(1, side)) for side in shape)
    tensor = _field(1, kind) + _field(2, sides)
    return _field(1, name) + _field(2, _field(1, tensor))


def _field(number: int, content: int | str | bytes) -> bytes:
    if isinstance(content, int):
        return _varint(number << 3 | VARINT) + _varint(content)
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | BYTES) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that there are more."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
