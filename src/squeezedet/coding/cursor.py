"""Bytes read from front to back; no declared size is believed before it is compared."""

from __future__ import annotations

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
        """The next bytes.

        Raises:
            ModelError: there are fewer.
        """
        left = len(self.content) - self.at
        if size > left:
            raise self.error(f"{size} bytes are declared at byte {self.at} where {left} are left")
        self.at += size
        return self.content[self.at - size : self.at]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def number(self) -> int:
        """An unsigned number of seven bits a byte, lowest first.

        Raises:
            ModelError: it does not end, or is longer than it needs to be.
        """
        value = 0
        for i in range(MAX_NUMBER_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                if i and not byte:
                    raise self.error(f"a number before byte {self.at} has superfluous bytes")
                return value
        raise self.error(f"a number before byte {self.at} does not end")

    def numbers(self, count: int) -> list[int]:
        """So many numbers; ``count`` must have been checked against a limit."""
        return [self.number() for _ in range(count)]

    def array(self, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        """So many numbers of a fixed size."""
        return np.frombuffer(self.take(count * dtype.itemsize), dtype)

    def end(self) -> None:
        """Nothing may be left.

        Raises:
            ModelError: something is.
        """
        if self.at != len(self.content):
            raise self.error(f"{len(self.content) - self.at} bytes too many")


def number_bytes(value: int) -> bytes:
    """What ``Cursor.number`` reads."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
