"""What earlier versions wrote, read and no more written: ``.sqz`` files, and tensors in codings of our own.

The container: a preamble, then header, card and template deflated, then the coded tensors, with a CRC-32 each. The
codings, see docs/model-file.md: canonical Huffman codes (RFC 1951, section 3.2.2), rANS (arXiv 1311.2540), kernels
grouped by the density of their channels. A stream of symbols is dealt to lanes, which NumPy decodes side by side.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding.cursor import Cursor
from squeezedet.coding.tensor import Numbers, open_tensor, read_book, starts_with_zero, to_positions
from squeezedet.errors import ModelError

# ------------------------------------------------------------ the container

MAGIC = b"\x89SQZ\r\n\x1a\n"
VERSION = 1
PREAMBLE = struct.Struct("<8sHIII")
"""Magic, version; of the header: its deflated bytes, inflated bytes, CRC-32 of the deflated."""
MAX_TEXT_BYTES = 1_000_000
MAX_TEMPLATE_BYTES = 200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SqzContent:
    """The sections of a ``.sqz``, inflated.

    Attributes:
        card: JSON.
        template: the graph without the numbers of its coded tensors.
        rows: of each tensor (name, dtype, numbers, bytes, place in the template); not checked.
        coded: the coded tensors one behind the other, each with the checksum of the header.
    """

    card: bytes
    template: bytes
    rows: list[list[Any]]
    coded: bytes


def read_sqz(content: bytes, where: str, *, card_only: bool = False) -> SqzContent:
    """Take a ``.sqz`` apart.

    Args:
        content: of the file.
        where: its path, for the errors.
        card_only: inflate nothing but the card.

    Raises:
        ModelError: it is damaged, of another version, or larger than the limits.
    """
    cursor = Cursor(content, f"{where}: the .sqz file")
    magic, version, *sizes = PREAMBLE.unpack(cursor.take(PREAMBLE.size))
    if (magic, version) != (MAGIC, VERSION):
        raise ModelError(f"{where}: not a .sqz file of version {VERSION}")
    try:
        header = json.loads(_inflate(cursor, sizes, MAX_TEXT_BYTES))
        card = _inflate(cursor, header["card"], MAX_TEXT_BYTES)
        if card_only:
            return SqzContent(card=card, template=b"", rows=[], coded=b"")
        template = _inflate(cursor, header["template"], MAX_TEMPLATE_BYTES)
        rows = [[name, kind, count, length, at] for name, kind, count, length, _, at in header["tensors"]]
        coded = [_checked(cursor, row[3], row[4]) for row in header["tensors"]]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise cursor.error(f"the header is malformed ({error})") from error
    cursor.end()
    return SqzContent(card=card, template=template, rows=rows, coded=b"".join(coded))


def _checked(cursor: Cursor, size: int, crc32: int) -> bytes:
    """The next bytes, which have this checksum."""
    taken = cursor.take(size)
    if zlib.crc32(taken) != crc32:
        raise cursor.error(f"the checksum of the {size} bytes before byte {cursor.at} is another")
    return taken


def _inflate(cursor: Cursor, section: Sequence[int], limit: int) -> bytes:
    """The next deflated section; no more memory than it declares, and that is limited."""
    size, inflated_bytes, crc32 = section
    packed = Cursor(_checked(cursor, size, crc32), cursor.where)
    if not 0 <= inflated_bytes <= limit:
        raise cursor.error(f"a section of {inflated_bytes} bytes, more than {limit}")
    content = packed.inflate(inflated_bytes)
    packed.end()
    return content


# ------------------------------------------------------------ tensors

CODED, GROUPED = 1, 2
"""The forms: codes; codes in parts by the density of channels, no more written even by the last of these versions."""
DENSE, GAP_BITS = 0, (2, 3, 4, 5, 6, 8)


@dataclass(frozen=True, slots=True, eq=False)
class HuffmanStream:
    """A stream of symbols that is not decoded yet.

    Attributes:
        size: symbols in it.
        lengths: (alphabet,) bits of each symbol's code.
        lane_bytes: (lanes,) bytes of each lane, which starts at a whole byte.
        content: of the lanes, one after another.
    """

    size: int
    lengths: NDArray[np.int64]
    lane_bytes: NDArray[np.int64]
    content: bytes


Stream = HuffmanStream | NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """So many places: the stream of their codes, or, where they are sparse, of those that are stored and of gaps."""

    size: int
    codes: Stream
    gaps: Stream | None = None

    def place(self, codes: NDArray[np.uint16], gaps: NDArray[np.uint16] | None) -> NDArray[np.uint16]:
        """(size,) the codes; a ModelError where gaps run past the part."""
        if gaps is None:
            return codes
        whole = np.zeros(self.size, np.uint16)
        whole[to_positions(gaps, self.size)] = codes
        return whole


def is_old(content: bytes) -> bool:
    """Whether a tensor has one of these codings."""
    return content[:1] in (bytes([CODED]), bytes([GROUPED]))


def decode_tensors(contents: Sequence[bytes], sizes: Sequence[int]) -> list[Numbers]:
    """Old tensors of so many numbers, flat, in the kind that they are stored in; faster than one after another.

    Raises:
        ModelError: the bytes are damaged, or hold another number of values.
    """
    parsed = [_parse(content, size) for content, size in zip(contents, sizes, strict=True)]
    streams = [s for _, parts, _ in parsed for part in parts for s in (part.codes, part.gaps)]
    waiting = [stream for stream in streams if isinstance(stream, HuffmanStream)]
    decoded = iter([symbols for i in range(0, len(waiting), BATCH) for symbols in _decode(waiting[i : i + BATCH])])

    def symbols(stream: Stream | None) -> Any:
        return next(decoded) if isinstance(stream, HuffmanStream) else stream

    found = []
    for book, parts, order in parsed:
        codes = np.concatenate([part.place(symbols(part.codes), symbols(part.gaps)) for part in parts])
        if order is not None:
            kernels = codes.reshape(len(order), -1)
            codes = np.empty_like(kernels)
            codes[order] = kernels
        found.append(book[codes.ravel()])
    return found


def _parse(content: bytes, size: int) -> tuple[Numbers, list[Part], NDArray[np.int64] | None]:
    """The values of a tensor, its parts, and for a grouped one the order of its kernels in them."""
    form, cursor = open_tensor(content, size)
    book = read_book(cursor)
    if not size:
        raise cursor.error(f"form {form} of 0 numbers")
    order, sizes = _read_groups(cursor, size) if form == GROUPED else (None, [size])
    parts = [_read_part(cursor, n, len(book), starts_with_zero(book)) for n in sizes]
    cursor.end()
    return book, parts, order


def _read_groups(cursor: Cursor, size: int) -> tuple[NDArray[np.int64], list[int]]:
    """The order of the kernels, group after group, and how many numbers each group has.

    A channel has a level below 16, a kernel the sum of those of its output and its input, which is its group.
    """
    outputs, inputs = cursor.number(), cursor.number()
    kernels, count = outputs * inputs, outputs + inputs
    if not 0 < kernels <= size or size % kernels:
        raise cursor.error(f"{outputs} by {inputs} channels for {size} numbers")
    levels = _nibbles(cursor, count)
    groups = (levels[:outputs, None] + levels[outputs:]).ravel()
    sizes = np.bincount(groups) * (size // kernels)
    return np.argsort(groups, kind="stable"), sizes[sizes > 0].tolist()


def _nibbles(cursor: Cursor, count: int) -> NDArray[np.int64]:
    """(count,) numbers of four bits, two a byte, the lower half first."""
    pairs = cursor.array(np.dtype(np.uint8), (count + 1) // 2).astype(np.int64)
    found = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()
    if found[count:].any():
        raise cursor.error(f"something follows the {count} halves of bytes")
    return found[:count]


def _read_part(cursor: Cursor, size: int, alphabet: int, zero: bool) -> Part:
    gap_bits = cursor.byte()
    if gap_bits == DENSE:
        return Part(size, _read_stream(cursor, size, alphabet))
    entries = cursor.number()
    if gap_bits not in GAP_BITS or not zero or entries > size:
        raise cursor.error(f"{entries} entries with gaps of {gap_bits} bits in {size} places")
    if not entries:
        return Part(size, np.zeros(size, np.uint16))
    return Part(size, _read_stream(cursor, entries, alphabet), _read_stream(cursor, entries, 1 << gap_bits))


# ------------------------------------------------------------ streams of symbols

CONSTANT, HUFFMAN, RANS = 0, 1, 2
LANE_SYMBOLS = 2048
LANE_SIZE = np.dtype("<u2")


def _lane_symbols(size: int) -> NDArray[np.int64]:
    """(lanes,) how many of a stream's symbols each lane has; symbol i is of lane i modulo lanes."""
    lanes = -(-size // LANE_SYMBOLS)
    return np.full(lanes, size // lanes) + (np.arange(lanes) < size % lanes)


def _read_stream(cursor: Cursor, size: int, alphabet: int) -> Stream:
    """So many symbols below ``alphabet``, at least one."""
    method = cursor.byte()
    if method == CONSTANT:
        symbol = cursor.number()
        if symbol >= alphabet:
            raise cursor.error(f"symbol {symbol} of an alphabet of {alphabet}")
        return np.full(size, symbol, np.uint16)
    if method == HUFFMAN:
        lengths = _nibbles(cursor, alphabet)
        _check_lengths(cursor, lengths)
        lane_bytes = cursor.array(LANE_SIZE, len(_lane_symbols(size))).astype(np.int64)
        return HuffmanStream(size, lengths, lane_bytes, cursor.take(int(lane_bytes.sum())))
    if method == RANS:
        return _read_rans(cursor, size, alphabet)
    raise cursor.error(f"coder {method} is unknown")


MAX_LENGTH = 12
"""Bits of a code: a decoding table has 4096 rows."""
BATCH = 1024
"""Streams whose tables, of 32 KB, are in memory together."""


def _check_lengths(cursor: Cursor, lengths: NDArray[np.int64]) -> None:
    """A ModelError unless lengths belong to a full prefix code (Kraft's sum is 1), or to a single code of one bit."""
    used = lengths[lengths > 0]
    if lengths.max() > MAX_LENGTH:
        raise cursor.error("the code table has impossible lengths")
    if used.tolist() != [1] and np.sum(1 << (MAX_LENGTH - used)) != 1 << MAX_LENGTH:
        raise cursor.error("the lengths of the code table form no full prefix code")


def _table(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(4096,) bits << 16 | symbol of the code that each 12 bits begin with."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    bits = lengths[order]
    table = np.zeros(1 << MAX_LENGTH, np.int64)
    filled = np.repeat(bits << 16 | order, 1 << (MAX_LENGTH - bits))
    table[: len(filled)] = filled
    return table


def _decode(streams: Sequence[HuffmanStream]) -> Iterator[NDArray[np.uint16]]:
    """The symbols of many streams, all lanes side by side; one that has no symbol left stands still.

    Raises:
        ModelError: a lane does not end with its bytes.
    """
    lanes = [_lane_symbols(stream.size) for stream in streams]
    counts = np.concatenate(lanes)
    sizes = np.concatenate([stream.lane_bytes for stream in streams])
    start = 8 * (np.cumsum(sizes) - sizes)
    steps = int(counts.max())
    content = b"".join(stream.content for stream in streams) + bytes(steps * MAX_LENGTH // 8 + 4)  # damage finds zeros
    octets = np.frombuffer(content, np.uint8).astype(np.int64)
    windows = octets[:-2] << 16 | octets[1:-1] << 8 | octets[2:]
    tables = np.concatenate([_table(stream.lengths) for stream in streams])
    base = np.repeat(np.arange(len(streams)) << MAX_LENGTH, [len(lane) for lane in lanes])
    symbols = np.empty((steps, len(counts)), np.uint16)
    at = start.copy()
    for step in range(steps):
        code = windows[at >> 3] >> (24 - MAX_LENGTH - (at & 7))
        hit = tables[(code & ((1 << MAX_LENGTH) - 1)) + base]
        symbols[step] = hit & 0xFFFF
        at += (hit >> 16) * (counts > step)
    if (at > start + 8 * sizes).any() or (at <= start + 8 * (sizes - 1)).any():
        raise ModelError("the codes are damaged: they do not end where their bytes do")
    first = 0
    for stream, lane in zip(streams, lanes, strict=True):
        yield symbols[: int(lane.max()), first : first + len(lane)].ravel()[: stream.size]
        first += len(lane)


SCALE_BITS, WORD_BITS = 12, 16
LOW = 1 << WORD_BITS
"""Below it a state takes a word."""


def _read_rans(cursor: Cursor, size: int, alphabet: int) -> NDArray[np.uint16]:
    """A stream of rANS: frequencies, words and state of each lane, words."""
    frequencies = np.array([cursor.number() for _ in range(alphabet)])
    if frequencies.sum() != 1 << SCALE_BITS:
        raise cursor.error(f"the frequencies add up to {frequencies.sum()}, not {1 << SCALE_BITS}")
    symbol_of = np.repeat(np.arange(alphabet), frequencies).tolist()
    starts = (np.cumsum(frequencies) - frequencies).tolist()
    lanes = _lane_symbols(size)
    lane_words = cursor.array(LANE_SIZE, len(lanes)).tolist()
    states = cursor.array(np.dtype("<u4"), len(lanes)).tolist()
    if min(states) < LOW:
        raise cursor.error("a state is too small")
    found = np.empty(size, np.uint16)
    share = frequencies.tolist()
    for lane, (state, words) in enumerate(zip(states, lane_words, strict=True)):
        left = cursor.array(np.dtype("<u2"), words)[::-1].tolist()
        x, symbols = state, []
        for _ in range(lanes[lane]):
            slot = x & ((1 << SCALE_BITS) - 1)
            symbol = symbol_of[slot]
            symbols.append(symbol)
            x = share[symbol] * (x >> SCALE_BITS) + slot - starts[symbol]
            if x < LOW and left:
                x = x << WORD_BITS | left.pop()
        if x != LOW or left:
            raise ModelError("the codes are damaged: they do not end where their bytes do")
        found[lane :: len(lanes)] = symbols
    return found
