"""Bytes read from front to back; no declared size is believed before it is compared."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError

MAX_NUMBER_BYTES = 5
"""Of a number of seven bits a byte: sizes stay below 2^35."""


class Cursor:
    """A place in bytes.

    Attributes:
        content: the bytes.
        at: how many of them are read.
        where: what they are, for the errors.
    """

    def __init__(self, content: bytes, where: str) -> None:
        self.content, self.where = content, where
        self.at = 0

    def error(self, what: str) -> ModelError:
        """The sentence for damage hereabouts."""
        return ModelError(f"{self.where} is damaged: {what}")

    def take(self, size: int) -> bytes:
        """The next bytes; a ModelError where there are fewer."""
        left = len(self.content) - self.at
        if not 0 <= size <= left:
            raise self.error(f"{size} bytes are declared at byte {self.at} where {left} are left")
        self.at += size
        return self.content[self.at - size : self.at]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def number(self) -> int:
        """An unsigned number of seven bits a byte, lowest first; one that is longer than need be is a ModelError."""
        value = 0
        for i in range(MAX_NUMBER_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                if i and not byte:
                    raise self.error(f"a number before byte {self.at} has superfluous bytes")
                return value
        raise self.error(f"a number before byte {self.at} does not end")

    def array(self, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        """So many numbers of a fixed size."""
        return np.frombuffer(self.take(count * dtype.itemsize), dtype)

    def inflate(self, size: int) -> bytes:
        """The next zlib stream, which holds so many bytes; no more memory than that is taken."""
        inflater = zlib.decompressobj()
        packed = self.content[self.at :]
        try:
            inflated = inflater.decompress(packed, size + 1)
        except zlib.error as error:
            raise self.error(f"what begins at byte {self.at} cannot be inflated ({error})") from error
        if len(inflated) != size or not inflater.eof:
            raise self.error(f"what begins at byte {self.at} has not the {size} bytes that are declared")
        self.at += len(packed) - len(inflater.unused_data)
        return inflated

    def end(self) -> None:
        """A ModelError where anything is left."""
        if self.at != len(self.content):
            raise self.error(f"{len(self.content) - self.at} bytes too many")


def number_bytes(value: int) -> bytes:
    """What ``Cursor.number`` reads."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
