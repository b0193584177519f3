"""One tensor as bytes: whichever of the exact forms is the smallest.

``encode_tensor`` finds the shared values itself (numbers count as equal when their bits are), so
what it is given is the tensor as the graph holds it: after sharing, and after rounding to float16
if the graph stores float16. ``decode_tensor`` gives back the same bits.

The codes of the values are Huffman's; where most are zero they are stored with the gaps between
them (relative indices: Deep Compression, arXiv 1510.00149, section 2). A gap longer than its bits
allow is bridged by fillers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding import huffman
from squeezedet.coding.cursor import Cursor, number_bytes
from squeezedet.coding.huffman import lane_count
from squeezedet.coding.legacy import Channels, RansStream, decode_rans, read_channels, read_rans
from squeezedet.errors import ModelError, UsageError

FILLER = 0
"""The code of a filler."""


def to_gaps(
    positions: NDArray[np.int64], codes: NDArray[np.uint16], bits: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The gaps, and the codes with those of the fillers between them.

    Args:
        positions: (entries,) ascending places in the flattened tensor.
        codes: (entries,) what stands there; none is ``FILLER``.
        bits: of a gap.
    """
    zeros = np.diff(positions, prepend=-1) - 1
    fillers = zeros >> bits
    gaps = np.full(len(positions) + int(fillers.sum()), (1 << bits) - 1, np.uint16)
    all_codes = np.full(len(gaps), FILLER, np.uint16)
    ends = np.cumsum(fillers + 1) - 1
    gaps[ends] = zeros & ((1 << bits) - 1)
    all_codes[ends] = codes
    return gaps, all_codes


def to_positions(gaps: NDArray[np.uint16] | NDArray[np.uint8], size: int) -> NDArray[np.int64]:
    """The places of the entries in a flattened tensor of so many numbers.

    Raises:
        ModelError: they run past it.
    """
    positions: NDArray[np.int64] = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(positions) and positions[-1] >= size:
        raise ModelError(f"the gaps are damaged: they run to place {positions[-1]} of {size} in their part")
    return positions


CONSTANT, HUFFMAN, RANS = 0, 1, 2
LANE_SIZE = np.dtype("<u2")
BATCH = 1024
"""Streams whose tables, of up to 72 KB, are in memory together."""


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A stream of one symbol only.

    Attributes:
        size: how many there are.
        symbol: which.
    """

    size: int
    symbol: int


Stream = Constant | huffman.Coded | RansStream
NAMES: dict[type, str] = {Constant: "constant", huffman.Coded: "huffman", RansStream: "rans"}


def rough_bytes(counts: NDArray[np.int64]) -> float:
    """About how many bytes symbols need that occur so often."""
    used, total = counts[counts > 0], int(counts.sum())
    if len(used) < 2:
        return 3
    bits = max(float(used @ np.log2(total / used)), total)  # a code has one bit at least
    return 1 + len(counts) / 2 + bits / 8 + 2.5 * lane_count(total)


def encode_symbols(symbols: NDArray[np.uint16], alphabet: int) -> bytes:
    """Code a stream; neither its size nor its alphabet are in the bytes.

    Args:
        symbols: at least one.
        alphabet: they are below it.
    """
    counts = np.bincount(symbols, minlength=alphabet).astype(np.int64)
    if np.count_nonzero(counts) == 1:
        return bytes([CONSTANT]) + number_bytes(int(symbols[0]))
    coded = huffman.encode(symbols, huffman.code_lengths(counts))
    nibbles = np.concatenate([coded.lengths, np.zeros(alphabet % 2, np.int64)])
    table = (nibbles[::2] | nibbles[1::2] << 4).astype(np.uint8)
    lane_bytes = coded.lane_bytes.astype(LANE_SIZE)
    return b"".join([bytes([HUFFMAN]), table.tobytes(), lane_bytes.tobytes(), coded.content])


def read_symbols(cursor: Cursor, size: int, alphabet: int) -> Stream:
    """The stream at the cursor; its codes are not decoded yet.

    Args:
        cursor: moves behind the stream.
        size: symbols in it, at least one.
        alphabet: they are below it; below 2^16.

    Raises:
        ModelError: the bytes are damaged.
    """
    method = cursor.byte()
    if method == CONSTANT:
        symbol = cursor.number()
        if symbol >= alphabet:
            raise cursor.error(f"symbol {symbol} of an alphabet of {alphabet}")
        return Constant(size, symbol)
    if method == HUFFMAN:
        pairs = cursor.array(np.dtype(np.uint8), (alphabet + 1) // 2)
        nibbles = np.stack([pairs & 15, pairs >> 4], axis=1).ravel().astype(np.int64)
        if nibbles[alphabet:].any() or nibbles.max() > huffman.MAX_LENGTH:
            raise cursor.error("the code table has impossible lengths")
        huffman.canonical_codes(nibbles[:alphabet])
        lane_bytes = cursor.array(LANE_SIZE, lane_count(size)).astype(np.int64)
        return huffman.Coded(size, nibbles[:alphabet], lane_bytes, cursor.take(int(lane_bytes.sum())))
    if method == RANS:
        return read_rans(cursor, size, alphabet)
    raise cursor.error(f"coder {method} is unknown")


def decode_symbols(streams: Sequence[Stream]) -> list[NDArray[np.uint16]]:
    """The symbols of many streams, those of one coder side by side.

    Raises:
        ModelError: the codes are damaged.
    """
    found: list[NDArray[np.uint16]] = []
    for first in range(0, len(streams), BATCH):
        found += _decode(streams[first : first + BATCH])
    return found


def _decode(streams: Sequence[Stream]) -> list[NDArray[np.uint16]]:
    tabled = iter(huffman.decode([s for s in streams if isinstance(s, huffman.Coded)]))
    mixed = iter(decode_rans([s for s in streams if isinstance(s, RansStream)]))
    return [
        np.full(stream.size, stream.symbol, np.uint16)
        if isinstance(stream, Constant)
        else next(tabled if isinstance(stream, huffman.Coded) else mixed)
        for stream in streams
    ]


DENSE = 0
GAP_BITS = (2, 3, 4, 5, 6, 8)
"""Tried in turn; Deep Compression has 4."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Codes of a part.

    Attributes:
        size: places in it.
        gap_bits: of a sparse one; ``DENSE`` for a dense one.
        codes: those that are stored, fillers among them.
        gaps: before each of them; empty for a dense one.
    """

    size: int
    gap_bits: int
    codes: NDArray[np.uint16]
    gaps: NDArray[np.uint16]

    def cost(self, alphabet: int) -> float:
        """Bytes that it will need, roughly."""
        needs = rough_bytes(np.bincount(self.codes, minlength=alphabet))
        if self.gap_bits:
            needs += rough_bytes(np.bincount(self.gaps, minlength=1 << self.gap_bits))
        return needs

    def to_bytes(self, alphabet: int) -> bytes:
        """What ``read`` reads."""
        if not self.gap_bits:
            return bytes([DENSE]) + encode_symbols(self.codes, alphabet)
        head = bytes([self.gap_bits]) + number_bytes(len(self.codes))
        if not len(self.codes):
            return head
        gaps = encode_symbols(self.gaps, 1 << self.gap_bits)
        return head + encode_symbols(self.codes, alphabet) + gaps


def best_part(codes: NDArray[np.uint16], alphabet: int, zero: bool) -> Part:
    """The part in the form that needs the fewest bytes.

    Args:
        codes: (places,) below ``alphabet``; at least one.
        alphabet: how many codes there are.
        zero: whether code 0 stands for zero; only then can a part be sparse.
    """
    none = np.zeros(0, np.uint16)
    forms = [Part(len(codes), DENSE, codes, none)]
    if zero:
        places = np.flatnonzero(codes)
        for bits in GAP_BITS:
            gaps, stored = to_gaps(places, codes[places], bits)
            forms.append(Part(len(codes), bits, stored, gaps))
    return min(forms, key=lambda part: part.cost(alphabet))


@dataclass(frozen=True, slots=True, eq=False)
class CodedPart:
    """A part whose streams are not decoded yet.

    Attributes:
        size: places in it.
        gap_bits: see ``Part``.
        streams: none (nothing but zeros), the codes, or the codes and the gaps.
    """

    size: int
    gap_bits: int
    streams: tuple[Stream, ...]

    def assemble(self, decoded: Iterator[NDArray[np.uint16]]) -> NDArray[np.uint16]:
        """(size,) the codes, once the streams are decoded.

        Raises:
            ModelError: gaps run past the part.
        """
        if not self.gap_bits:
            return next(decoded)
        whole = np.zeros(self.size, np.uint16)
        if self.streams:
            codes, gaps = next(decoded), next(decoded)
            whole[to_positions(gaps, self.size)] = codes
        return whole


def read_parts(cursor: Cursor, size: int, alphabet: int, zero: bool) -> CodedPart:
    """The part at the cursor; see ``best``.

    Raises:
        ModelError: the bytes are damaged.
    """
    gap_bits = cursor.byte()
    if gap_bits == DENSE:
        return CodedPart(size, DENSE, (read_symbols(cursor, size, alphabet),))
    entries = cursor.number()
    if gap_bits not in GAP_BITS or not zero or entries > size:
        raise cursor.error(f"{entries} entries with gaps of {gap_bits} bits in {size} places")
    if not entries:
        return CodedPart(size, gap_bits, ())
    codes = read_symbols(cursor, entries, alphabet)
    return CodedPart(size, gap_bits, (codes, read_symbols(cursor, entries, 1 << gap_bits)))


MAX_VALUES = 1024
"""Different values of a tensor that is coded by symbols; one with more of them stays raw."""
MAX_SIZE = 25_000_000
"""Numbers in a tensor."""
RAW, CODED, GROUPED = 0, 1, 2
"""The forms: the numbers; codes; codes in parts by the density of channels, no more written."""
FLOAT32, FLOAT16 = np.dtype("<f4"), np.dtype("<f2")
STORED = (FLOAT32, FLOAT16)
"""How numbers are stored, by the number in the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSummary:
    """What a report says of an encoded tensor.

    Attributes:
        form: "raw float32", "raw float16", "dense" (zero is a symbol), "sparse" (gaps) or
            "mixed" (some parts so, some so).
        parts: in which it is coded; 0 for raw, 1 unless squeezedet 0.1 made it.
        coders: that occur: "constant" (which costs nothing), "huffman", and "rans" in old files.
        size: numbers in the tensor.
        values: in its codebook; 0 for raw.
        entries: codes that are stored: all of a dense tensor, those of a sparse one with its
            fillers; 0 for raw.
        size_bytes: encoded.
    """

    form: str
    parts: int
    coders: tuple[str, ...]
    size: int
    values: int
    entries: int
    size_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class _Parsed:
    """An encoded tensor whose streams are not decoded yet.

    Attributes:
        size: numbers in the tensor.
        numbers: the tensor itself if it is raw, otherwise its codebook; as stored.
        channels: whose levels order the kernels in the parts; None where all is one part.
        parts: none if it is raw.
    """

    size: int
    numbers: NDArray[np.floating[Any]]
    channels: Channels | None
    parts: tuple[CodedPart, ...]

    def assemble(
        self, numbers: NDArray[np.floating[Any]], decoded: Iterator[NDArray[np.uint16]]
    ) -> NDArray[np.floating[Any]]:
        """The tensor, flat; ``numbers`` are its own, in the kind that is asked for."""
        if not self.parts:
            return numbers.copy()  # not a window on the bytes
        codes = np.concatenate([part.assemble(decoded) for part in self.parts])
        if self.channels is not None:
            order = self.channels.order()
            kernels = codes.reshape(len(order), -1)
            codes = np.empty_like(kernels)
            codes[order] = kernels
        whole: NDArray[np.floating[Any]] = numbers[codes.ravel()]
        return whole


def encode_tensor(values: NDArray[np.float32]) -> bytes:
    """The tensor in its smallest exact form.

    Args:
        values: float32 of any shape. At most ``MAX_VALUES`` different values are coded by symbols;
            of more, or if that is smaller, the numbers are stored as they are, as float16 where
            that is exact.

    Raises:
        UsageError: the values are not float32, or too many.
    """
    if values.dtype != np.float32 or values.size > MAX_SIZE:
        raise UsageError(f"a tensor is at most {MAX_SIZE} float32 numbers, not {values.size} {values.dtype}")
    bits = np.ascontiguousarray(values).ravel().view(np.uint32)
    raw = bytes([RAW]) + number_bytes(bits.size) + _numbers(bits)
    book, codes = np.unique(bits, return_inverse=True)
    if not 0 < len(book) <= MAX_VALUES:
        return raw
    zero = bool(book[0] == 0)  # the first of the values, if it occurs
    part = best_part(codes.astype(np.uint16).ravel(), len(book), zero)
    head = bytes([CODED]) + number_bytes(bits.size) + number_bytes(len(book))
    return min(raw, head + _numbers(book) + part.to_bytes(len(book)), key=len)


def _numbers(bits: NDArray[np.uint32]) -> bytes:
    """How they are stored, then the numbers: as float16 if that changes no bit."""
    half = _as_half(bits.view(np.float32))
    if half is None:
        return bytes([STORED.index(FLOAT32)]) + bits.astype("<u4").tobytes()
    return bytes([STORED.index(FLOAT16)]) + half.astype(FLOAT16).tobytes()


def _as_half(numbers: NDArray[np.float32]) -> NDArray[np.float16] | None:
    """The numbers as float16, or nothing if one does not come back bit for bit."""
    with np.errstate(all="ignore"):
        half = numbers.astype(np.float16)
        again = half.astype(np.float32)
    return half if np.array_equal(again.view(np.uint32), numbers.view(np.uint32)) else None


def decode_tensor(
    content: bytes, shape: tuple[int, ...], dtype: type[np.floating[Any]] = np.float32
) -> NDArray[np.floating[Any]]:
    """The tensor again, bit for bit.

    Args:
        content: from ``encode``.
        shape: of the tensor.
        dtype: float32 or float16; as float16, every number must fit exactly.

    Raises:
        ModelError: the bytes are damaged, or hold another number of values.
    """
    (flat,) = decode_all([content], [math.prod(shape)], [dtype])
    return flat.reshape(shape)


def decode_all(
    contents: Sequence[bytes], sizes: Sequence[int], dtypes: Sequence[type[np.floating[Any]]]
) -> list[NDArray[np.floating[Any]]]:
    """Many tensors at once, flat: far faster than one after another.

    Args:
        contents: from ``encode``.
        sizes: how many numbers each has; compared before memory is taken.
        dtypes: see ``decode``.

    Raises:
        ModelError: see ``decode``.
    """
    parsed = [_parse(content, size) for content, size in zip(contents, sizes, strict=True)]
    streams = [s for tensor in parsed for part in tensor.parts for s in part.streams]
    decoded = iter(decode_symbols(streams))
    return [tensor.assemble(_as(tensor.numbers, dtype), decoded) for tensor, dtype in zip(parsed, dtypes, strict=True)]


def describe(content: bytes) -> TensorSummary:
    """What form an encoded tensor has, without decoding its codes.

    Raises:
        ModelError: the bytes are damaged.
    """
    parsed = _parse(content)
    streams = [stream for part in parsed.parts for stream in part.streams]
    forms = {"sparse" if part.gap_bits else "dense" for part in parsed.parts}
    return TensorSummary(
        form="mixed" if len(forms) > 1 else next(iter(forms), f"raw {parsed.numbers.dtype.name}"),
        parts=len(parsed.parts),
        coders=tuple(sorted({NAMES[type(stream)] for stream in streams})),
        size=parsed.size,
        values=len(parsed.numbers) if parsed.parts else 0,
        entries=sum(part.streams[0].size for part in parsed.parts if part.streams),
        size_bytes=len(content),
    )


def _parse(content: bytes, expected: int | None = None) -> _Parsed:
    cursor = Cursor(content, "an encoded tensor")
    form, size = cursor.byte(), cursor.number()
    if size > MAX_SIZE or expected not in (None, size):
        wanted = f"up to {MAX_SIZE}" if expected is None else expected
        raise cursor.error(f"it has {size} numbers instead of {wanted}")
    if form not in (RAW, CODED, GROUPED) or (form != RAW and not size):
        raise cursor.error(f"form {form} of {size} numbers")
    if form == RAW:
        parsed = _Parsed(size, _read_numbers(cursor, size), None, ())
    else:
        count = cursor.number()
        if not 0 < count <= MAX_VALUES:
            raise cursor.error(f"{count} values where 1 to {MAX_VALUES} can be")
        book = _read_numbers(cursor, count)
        zero = book[0].tobytes().count(0) == book.itemsize
        if form == CODED:
            parsed = _Parsed(size, book, None, (read_parts(cursor, size, count, zero),))
        else:
            levels = _read_channels(cursor, size)
            kernel = size // (len(levels.outputs) * len(levels.inputs))
            groups = [kernel * kernels for kernels in levels.group_sizes()]
            found = tuple(read_parts(cursor, n, count, zero) for n in groups)
            parsed = _Parsed(size, book, levels, found)
    cursor.end()
    return parsed


def _read_channels(cursor: Cursor, size: int) -> Channels:
    outputs, inputs = cursor.number(), cursor.number()
    kernels = outputs * inputs
    if not 0 < kernels <= size or size % kernels:
        raise cursor.error(f"{outputs} by {inputs} channels for {size} numbers")
    return read_channels(cursor, outputs, inputs)


def _read_numbers(cursor: Cursor, count: int) -> NDArray[np.floating[Any]]:
    stored = cursor.byte()
    if stored >= len(STORED):
        raise cursor.error(f"numbers of the unknown kind {stored}")
    return cursor.array(STORED[stored], count)


def _as(numbers: NDArray[np.floating[Any]], dtype: type[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The numbers as another kind, if that changes none."""
    if numbers.dtype == dtype:
        return numbers
    if dtype is np.float32:
        return numbers.astype(np.float32)
    half = _as_half(numbers.astype(np.float32, copy=False))
    if half is None:
        raise ModelError("an encoded tensor is damaged: its numbers are no float16")
    return half
