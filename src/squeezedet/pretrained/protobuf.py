"""Protocol Buffers on the wire: the fields of a message, and nothing of its schema.

A message is a row of fields, each a varint key (number << 3 | wire type) and a value
(Protocol Buffers documentation, "Encoding"). A field is given as the place of its value
in the file: nothing is copied, and no declared length is believed before it is compared
with the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from squeezedet.errors import ModelError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types; 3 and 4 are groups, long out of use."""
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
MAX_VARINT_BYTES = 10
MAX_NAME_BYTES = 1000


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: which field of its message it is.
        wire: its wire type.
        start, stop: the bytes of its value in the file.
        value: the number, if it is a varint (unsigned); 0 otherwise.
    """

    number: int
    wire: int
    start: int
    stop: int
    value: int


class WireReader:
    """Reads the fields of the messages in one file.

    Attributes:
        content: the bytes of the file.
    """

    def __init__(self, content: bytes, path: Path, kind: str) -> None:
        """Args: the file's bytes, its path and what it ought to be, for the errors."""
        self.content = content
        self._path, self._kind = path, kind

    def error(self, at: int, what: str) -> ModelError:
        """The sentence for damage at byte ``at``."""
        return ModelError(
            f"{self._path}: not {self._kind}, or a damaged one: {what} at byte {at} "
            f"of {len(self.content)}"
        )

    def fields(self, start: int = 0, stop: int | None = None) -> Iterator[Field]:
        """The fields between two bytes: of the whole file, or of the message that a field holds.

        Raises:
            ModelError: the bytes are no fields, or end within one.
        """
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
        """An unsigned number of seven bits a byte, lowest first; returns it and where it ends.

        Raises:
            ModelError: it does not end before ``stop`` or within ten bytes.
        """
        value = 0
        for shift, byte in enumerate(self.content[at : min(at + MAX_VARINT_BYTES, stop)]):
            value |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:
                return value, at + shift + 1
        raise self.error(at, "a number that does not end")

    def name(self, field: Field) -> str:
        """The value of a field that is a name; what is no UTF-8 is escaped.

        Raises:
            ModelError: it is too long for a name.
        """
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
