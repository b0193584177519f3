"""What earlier versions wrote, read and no more written: ``.sqz`` files, and tensors in codings of our own.

The container: a preamble, then header, card and template deflated, then the coded tensors, with a CRC-32 each. The
codings, see docs/model-file.md: canonical Huffman codes (RFC 1951, section 3.2.2), rANS (arXiv 1311.2540), kernels
grouped by the density of their channels. A stream of symbols is dealt to lanes.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding.tensor import Cursor, Numbers, open_tensor, read_book, starts_with_zero, to_positions
from squeezedet.errors import ModelError

# ------------------------------------------------------------ the container

MAGIC = b"\x89SQZ\r\n\x1a\n"
VERSION = 1
PREAMBLE = struct.Struct("<8sHIII")
"""Magic, version; of the header: its deflated bytes, inflated bytes, CRC-32 of the deflated."""
MAX_TEXT_BYTES = 1_000_000
MAX_TEMPLATE_BYTES = 200_000_000


class SqzContent(NamedTuple):
    """The sections of a ``.sqz``, inflated: the card as JSON, and what ``coding.graph.coded_graph`` checks."""

    card: bytes
    template: bytes = b""
    rows: Sequence[Any] = ()
    coded: bytes = b""


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
            return SqzContent(card)
        template = _inflate(cursor, header["template"], MAX_TEMPLATE_BYTES)
        rows = [[name, kind, count, length, at] for name, kind, count, length, _, at in header["tensors"]]
        coded = [_checked(cursor, row[3], row[4]) for row in header["tensors"]]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise cursor.error(f"the header is malformed ({error})") from error
    cursor.end()
    return SqzContent(card, template, rows, b"".join(coded))


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


def is_old(content: bytes) -> bool:
    """Whether a tensor has one of these codings."""
    return content[:1] in (bytes([CODED]), bytes([GROUPED]))


def decode_tensor(content: bytes, size: int) -> Numbers:
    """An old tensor of so many numbers, flat, in the kind that they are stored in.

    Raises:
        ModelError: the bytes are damaged, or hold another number of values.
    """
    form, cursor = open_tensor(content, size)
    book = read_book(cursor)
    if not size:
        raise cursor.error(f"form {form} of 0 numbers")
    order, sizes = _read_groups(cursor, size) if form == GROUPED else (None, [size])
    codes: NDArray[np.uint16] = np.concatenate([_read_part(cursor, n, book) for n in sizes])
    cursor.end()
    if order is not None:
        kernels = codes.reshape(len(order), -1)
        codes = np.empty_like(kernels)
        codes[order] = kernels
    found: Numbers = book[codes.ravel()]
    return found


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


def _read_part(cursor: Cursor, size: int, book: Numbers) -> NDArray[np.uint16]:
    """(size,) codes: of all places or, where they are sparse, of those that are stored, with their gaps."""
    gap_bits = cursor.byte()
    if gap_bits == DENSE:
        return _read_stream(cursor, size, len(book))
    entries = cursor.number()
    if gap_bits not in GAP_BITS or not starts_with_zero(book) or entries > size:
        raise cursor.error(f"{entries} entries with gaps of {gap_bits} bits in {size} places")
    codes = np.zeros(size, np.uint16)
    if entries:
        stored = _read_stream(cursor, entries, len(book))
        codes[to_positions(_read_stream(cursor, entries, 1 << gap_bits), size)] = stored
    return codes


# ------------------------------------------------------------ streams of symbols

CONSTANT, HUFFMAN, RANS = 0, 1, 2
LANE_SYMBOLS = 2048
LANE_SIZE = np.dtype("<u2")


def _read_stream(cursor: Cursor, size: int, alphabet: int) -> NDArray[np.uint16]:
    """So many symbols below ``alphabet``, at least one; symbol i is of lane i modulo lanes."""
    method = cursor.byte()
    lanes = -(-size // LANE_SYMBOLS)
    if method == CONSTANT:
        symbol = cursor.number()
        if symbol >= alphabet:
            raise cursor.error(f"symbol {symbol} of an alphabet of {alphabet}")
        return np.full(size, symbol, np.uint16)
    if method == HUFFMAN:
        return _read_huffman(cursor, size, lanes, alphabet)
    if method == RANS:
        return _read_rans(cursor, size, lanes, alphabet)
    raise cursor.error(f"coder {method} is unknown")


def _wrong_end(cursor: Cursor) -> ModelError:
    return cursor.error("its codes do not end where their bytes do")


MAX_LENGTH = 12
"""Bits of a code: a decoding table has 4096 rows."""


def _read_huffman(cursor: Cursor, size: int, lanes: int, alphabet: int) -> NDArray[np.uint16]:
    """A stream of Huffman codes: their lengths, bytes of each lane, lanes."""
    table = _table(cursor, _nibbles(cursor, alphabet))
    symbols = np.empty(size, np.uint16)
    for lane, size_bytes in enumerate(cursor.array(LANE_SIZE, lanes).tolist()):
        octets = np.frombuffer(cursor.take(size_bytes) + bytes(2), np.uint8).astype(np.int64)
        windows = octets[:-2] << 16 | octets[1:-1] << 8 | octets[2:]
        shifts = 24 - MAX_LENGTH - np.arange(8)
        hits = table[(windows[:, None] >> shifts).ravel() & ((1 << MAX_LENGTH) - 1)].tolist()  # one for each bit
        found, at = [], 0
        for _ in range(lane, size, lanes):
            if at >= len(hits):
                raise _wrong_end(cursor)
            found.append(hits[at] & 0xFFFF)
            at += hits[at] >> 16
        if not len(hits) - 8 < at <= len(hits):
            raise _wrong_end(cursor)
        symbols[lane::lanes] = found
    return symbols


def _table(cursor: Cursor, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(4096,) bits << 16 | symbol of the code that each 12 bits begin with.

    Lengths must belong to a full prefix code (Kraft's sum is 1), or to a single code of one bit.
    """
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    bits = lengths[order]
    if lengths.max() > MAX_LENGTH:
        raise cursor.error("the code table has impossible lengths")
    if bits.tolist() != [1] and np.sum(1 << (MAX_LENGTH - bits)) != 1 << MAX_LENGTH:
        raise cursor.error("the lengths of the code table form no full prefix code")
    table = np.zeros(1 << MAX_LENGTH, np.int64)
    filled = np.repeat(bits << 16 | order, 1 << (MAX_LENGTH - bits))
    table[: len(filled)] = filled
    return table


SCALE_BITS, WORD_BITS = 12, 16
LOW = 1 << WORD_BITS
"""Below it a state takes a word."""


def _read_rans(cursor: Cursor, size: int, lanes: int, alphabet: int) -> NDArray[np.uint16]:
    """A stream of rANS: frequencies, words and state of each lane, words."""
    frequencies = np.array([cursor.number() for _ in range(alphabet)])
    if frequencies.sum() != 1 << SCALE_BITS:
        raise cursor.error(f"the frequencies add up to {frequencies.sum()}, not {1 << SCALE_BITS}")
    symbol_of = np.repeat(np.arange(alphabet), frequencies).tolist()
    starts = (np.cumsum(frequencies) - frequencies).tolist()
    lane_words = cursor.array(LANE_SIZE, lanes).tolist()
    states = cursor.array(np.dtype("<u4"), lanes).tolist()
    if min(states) < LOW:
        raise cursor.error("a state is too small")
    symbols = np.empty(size, np.uint16)
    share = frequencies.tolist()
    for lane, words in enumerate(lane_words):
        left = cursor.array(np.dtype("<u2"), words)[::-1].tolist()
        x, found = states[lane], []
        for _ in range(lane, size, lanes):
            slot = x & ((1 << SCALE_BITS) - 1)
            symbol = symbol_of[slot]
            found.append(symbol)
            x = share[symbol] * (x >> SCALE_BITS) + slot - starts[symbol]
            if x < LOW and left:
                x = x << WORD_BITS | left.pop()
        if x != LOW or left:
            raise _wrong_end(cursor)
        symbols[lane::lanes] = found
    return symbols
