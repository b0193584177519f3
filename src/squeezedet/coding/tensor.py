"""One tensor as bytes: its different values, and which of them stands where, packed by zlib.

Deep Compression's last stage (arXiv 1510.00149). ``encode_tensor`` finds the shared values itself (numbers count as
equal when their bits are). Where most are zero, the others are stored with the gaps between them (relative indices,
section 2); a gap longer than a byte is bridged by fillers. The Huffman codes are zlib's. ``decode_tensor`` gives back
the same bits.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError, UsageError

# ------------------------------------------------------------ bytes, read from front to back

MAX_NUMBER_BYTES = 5
"""Of a number of seven bits a byte: sizes stay below 2^35."""


class Cursor:
    """A place in bytes, of which ``at`` are read; no declared size is believed before it is compared.

    ``where`` says what they are, for the errors.
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


# ------------------------------------------------------------ a tensor

MAX_VALUES = 1024
"""Different values of a tensor that is coded; one with more of them stays raw."""
MAX_SIZE = 25_000_000
"""Numbers in a tensor."""
RAW, SHARED = 0, 3
"""The forms: the numbers; values and codes. 1 and 2 are old ones, see ``legacy``."""
DENSE, SPARSE = 0, 1
STORED = (np.dtype("<f4"), np.dtype("<f2"))
"""How numbers are stored, by the number in the bytes."""
LONGEST_GAP = 255
FILLER = 0
"""The code of a filler."""
Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSummary:
    """What a report says of an encoded tensor.

    Attributes:
        form: "raw", "dense" (zero is a value like others) or "sparse" (gaps).
        size: numbers in the tensor.
        values: different ones; 0 for raw.
        size_bytes: encoded.
    """

    form: str
    size: int
    values: int
    size_bytes: int


def to_gaps(positions: NDArray[np.int64], codes: NDArray[np.uint16]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """The gaps, and the codes with those of the fillers between them.

    Args:
        positions: (entries,) ascending places in the flattened tensor.
        codes: (entries,) what stands there; none is ``FILLER``.
    """
    zeros = np.diff(positions, prepend=-1) - 1
    fillers = zeros // (LONGEST_GAP + 1)
    gaps = np.full(len(positions) + int(fillers.sum()), LONGEST_GAP, np.uint8)
    all_codes = np.full(len(gaps), FILLER, np.uint16)
    ends = np.cumsum(fillers + 1) - 1
    gaps[ends] = zeros % (LONGEST_GAP + 1)
    all_codes[ends] = codes
    return gaps, all_codes


def to_positions(gaps: NDArray[np.integer[Any]], size: int) -> NDArray[np.int64]:
    """The places of the entries in a flattened tensor of so many numbers; a ModelError where they run past it."""
    positions: NDArray[np.int64] = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(positions) and positions[-1] >= size:
        raise ModelError(f"the gaps are damaged: they run to place {positions[-1]} of {size}")
    return positions


# ------------------------------------------------------------ encoding


def encode_tensor(values: NDArray[np.float32]) -> bytes:
    """The tensor in its smallest exact form.

    Args:
        values: float32 of any shape. At most ``MAX_VALUES`` different values are coded; of more, or if that is
            smaller, the numbers are stored as they are, as float16 where that is exact.

    Raises:
        UsageError: the values are not float32, or too many.
    """
    if values.dtype != np.float32 or values.size > MAX_SIZE:
        raise UsageError(f"a tensor is at most {MAX_SIZE} float32 numbers, not {values.size} {values.dtype}")
    bits = np.ascontiguousarray(values).ravel().view(np.uint32)
    raw = bytes([RAW]) + number_bytes(bits.size) + _store(bits)
    book, inverse = np.unique(bits, return_inverse=True)
    if not 0 < len(book) <= MAX_VALUES:
        return raw
    head = bytes([SHARED]) + number_bytes(bits.size) + number_bytes(len(book)) + _store(book)
    if len(book) == 1:
        return min(raw, head, key=len)
    codes = inverse.ravel().astype(np.uint16)
    forms = [raw, head + bytes([DENSE]) + _pack_codes(codes, len(book))]
    if book[0] == 0:  # zero, if it occurs, is the first of the values
        places = np.flatnonzero(codes)
        gaps, stored = to_gaps(places, codes[places])
        sparse = number_bytes(len(stored)) + _pack_codes(stored, len(book)) + _deflate(gaps.tobytes())
        forms.append(head + bytes([SPARSE]) + sparse)
    return min(forms, key=len)


def _store(bits: NDArray[np.uint32]) -> bytes:
    """How numbers are stored, then the numbers: as float16 if that changes no bit."""
    half = _as_half(bits.view(np.float32))
    if half is None:
        return bytes([0]) + bits.astype("<u4").tobytes()
    return bytes([1]) + half.astype("<f2").tobytes()


def _as_half(numbers: NDArray[np.float32]) -> NDArray[np.float16] | None:
    """The numbers as float16, or nothing if one does not come back bit for bit."""
    with np.errstate(all="ignore"):
        half = numbers.astype(np.float16)
        again = half.astype(np.float32)
    return half if np.array_equal(again.view(np.uint32), numbers.view(np.uint32)) else None


def _planes(values: int) -> int:
    """Bytes of a code."""
    return 1 if values <= 256 else 2


def _pack_codes(codes: NDArray[np.uint16], values: int) -> bytes:
    """The low bytes of all codes, then the high ones if there are any, deflated."""
    octets = codes.astype("<u2").view(np.uint8).reshape(-1, 2)[:, : _planes(values)]
    return _deflate(octets.T.tobytes())


def _deflate(content: bytes) -> bytes:
    """A zlib stream: Huffman codes, with runs or without; longer matches are rare in weights and cost bits."""
    packed = []
    for strategy in (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE):
        deflater = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
        packed.append(deflater.compress(content) + deflater.flush())
    return min(packed, key=len)


# ------------------------------------------------------------ decoding


def decode_tensor(content: bytes, shape: tuple[int, ...], dtype: type[np.floating[Any]] = np.float32) -> Numbers:
    """The tensor again, bit for bit.

    Args:
        content: from ``encode_tensor``.
        shape: of the tensor; compared before memory is taken.
        dtype: float32 or float16; as float16, every number must fit exactly.

    Raises:
        ModelError: the bytes are damaged, or hold another number of values.
    """
    size = math.prod(shape)
    form, cursor = open_tensor(content, size)
    if form == RAW:
        flat = as_dtype(read_numbers(cursor, size), dtype).copy()  # not a window on the bytes
    elif form == SHARED:
        book = as_dtype(read_book(cursor), dtype)
        flat = book[_read_codes(cursor, size, book)]
    else:
        raise cursor.error(f"form {form}")
    cursor.end()
    return flat.reshape(shape)


def open_tensor(content: bytes, size: int) -> tuple[int, Cursor]:
    """The form of an encoded tensor, and the cursor behind it; a ModelError unless it has so many numbers."""
    cursor = Cursor(content, "an encoded tensor")
    form, count = cursor.byte(), cursor.number()
    if count != size or size > MAX_SIZE:
        raise cursor.error(f"it has {count} numbers instead of {min(size, MAX_SIZE)}")
    return form, cursor


def read_numbers(cursor: Cursor, count: int) -> Numbers:
    """So many numbers, as they are stored."""
    stored = cursor.byte()
    if stored >= len(STORED):
        raise cursor.error(f"numbers of the unknown kind {stored}")
    return cursor.array(STORED[stored], count)


def read_book(cursor: Cursor) -> Numbers:
    """The different values of a tensor, as they are stored."""
    count = cursor.number()
    if not 0 < count <= MAX_VALUES:
        raise cursor.error(f"{count} values where 1 to {MAX_VALUES} can be")
    return read_numbers(cursor, count)


def starts_with_zero(book: Numbers) -> bool:
    """Whether code 0 stands for zero (not -0.0); only then can a tensor be sparse."""
    return not any(book[0].tobytes())


def _read_codes(cursor: Cursor, size: int, book: Numbers) -> NDArray[np.uint16]:
    """(size,) codes, each below ``len(book)``."""
    if len(book) == 1:
        return np.zeros(size, np.uint16)
    layout = cursor.byte()
    if layout == DENSE:
        return _unpack_codes(cursor, size, len(book))
    entries = cursor.number()
    if layout != SPARSE or not starts_with_zero(book) or entries > size:
        raise cursor.error(f"layout {layout} of {entries} entries in {size} places")
    codes = np.zeros(size, np.uint16)
    stored = _unpack_codes(cursor, entries, len(book))
    gaps = np.frombuffer(cursor.inflate(entries), np.uint8)
    codes[to_positions(gaps, size)] = stored
    return codes


def _unpack_codes(cursor: Cursor, count: int, values: int) -> NDArray[np.uint16]:
    planes = np.frombuffer(cursor.inflate(count * _planes(values)), np.uint8).reshape(_planes(values), count)
    codes: NDArray[np.uint16] = planes[0].astype(np.uint16)
    if len(planes) > 1:
        codes |= planes[1].astype(np.uint16) << 8
    if codes.max(initial=0) >= values:
        raise cursor.error(f"code {codes.max()} of {values} values")
    return codes


def as_dtype(numbers: Numbers, dtype: type[np.floating[Any]]) -> Numbers:
    """The numbers as another kind; a ModelError if that changes one."""
    if numbers.dtype == dtype:
        return numbers
    if dtype is np.float32:
        return numbers.astype(np.float32)
    half = _as_half(numbers.astype(np.float32, copy=False))
    if half is None:
        raise ModelError("an encoded tensor is damaged: its numbers are no float16")
    return half


def describe(content: bytes) -> TensorSummary:
    """What form a tensor has that ``encode_tensor`` made."""
    cursor = Cursor(content, "an encoded tensor")
    form, size = cursor.byte(), cursor.number()
    values = len(read_book(cursor)) if form == SHARED else 0
    name = "raw"
    if values:
        name = "sparse" if values > 1 and cursor.byte() == SPARSE else "dense"
    return TensorSummary(form=name, size=size, values=values, size_bytes=len(content))
