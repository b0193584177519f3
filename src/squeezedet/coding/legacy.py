"""What squeezedet 0.1 wrote into ``.sqz`` files, read and no more written.

The container: a preamble, then header, card and template deflated, then the coded tensors, with
a CRC-32 each and no offsets that could overlap. Two codings earned less than 5 % and went: rANS
beside Huffman, and kernels grouped by the density of their channels.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding.cursor import Cursor
from squeezedet.coding.huffman import lane_count, schedule
from squeezedet.errors import ModelError

MAGIC = b"\x89SQZ\r\n\x1a\n"
VERSION = 1
PREAMBLE = struct.Struct("<8sHIII")
"""Magic, version; of the header: its deflated bytes, inflated bytes, CRC-32 of the deflated."""
MAX_HEADER_BYTES = 1_000_000
MAX_CARD_BYTES = 1_000_000
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
    if len(content) < PREAMBLE.size:
        raise _damaged(where, f"{len(content)} bytes")
    magic, version, size, inflated, crc32 = PREAMBLE.unpack_from(content)
    if magic != MAGIC:
        raise _damaged(where, "another magic number")
    if version != VERSION:
        raise ModelError(f"{where}: a .sqz of version {version}; this squeezedet reads {VERSION}")
    sections = _Sections(content, PREAMBLE.size, where)
    text = sections.inflate("header", [size, inflated, crc32], MAX_HEADER_BYTES)
    try:
        header = json.loads(text)
        card = sections.inflate("card", header["card"], MAX_CARD_BYTES)
        if card_only:
            return SqzContent(card=card, template=b"", rows=[], coded=b"")
        template = sections.inflate("template", header["template"], MAX_TEMPLATE_BYTES)
        rows = [[name, kind, count, length, at] for name, kind, count, length, _, at in header["tensors"]]
        coded = [sections.take(str(row[0])[:80], row[3], row[4]) for row in header["tensors"]]
        if sections.at != len(content):
            raise _damaged(where, f"{len(content) - sections.at} bytes too many")
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise _damaged(where, f"the header is malformed ({error})") from error
    return SqzContent(card=card, template=template, rows=rows, coded=b"".join(coded))


class _Sections:
    """The sections of a file, from front to back."""

    def __init__(self, content: bytes, at: int, where: str) -> None:
        self._content, self.at, self._where = content, at, where

    def take(self, name: str, size: Any, crc32: Any) -> bytes:
        """The next bytes, which have this checksum."""
        if type(size) is not int or not 0 <= size <= len(self._content) - self.at:
            raise _damaged(self._where, f"the {name} of {str(size)[:80]} bytes is not there")
        taken = self._content[self.at : self.at + size]
        self.at += size
        if zlib.crc32(taken) != crc32:
            raise _damaged(self._where, f"the checksum of the {name} is another")
        return taken

    def inflate(self, name: str, section: Sequence[Any], limit: int) -> bytes:
        """The next deflated section; no more memory than it declares, and that is limited."""
        size, inflated_bytes, crc32 = section
        packed = self.take(name, size, crc32)
        if type(inflated_bytes) is not int or not 0 <= inflated_bytes <= limit:
            raise _damaged(self._where, f"a {name} of {str(inflated_bytes)[:80]} bytes")
        inflater = zlib.decompressobj()
        try:
            inflated = inflater.decompress(packed, inflated_bytes + 1)
        except zlib.error as error:
            raise _damaged(self._where, f"the {name} cannot be inflated ({error})") from error
        if len(inflated) != inflated_bytes or not inflater.eof or inflater.unused_data:
            raise _damaged(self._where, f"the {name} has not the declared length")
        return inflated


def _damaged(where: str, what: str) -> ModelError:
    return ModelError(f"{where}: not a .sqz file, or a truncated or damaged one: {what}")


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """The levels of a tensor's channels.

    Attributes:
        outputs: (rows,) levels, below 16.
        inputs: (columns,) levels.
    """

    outputs: NDArray[np.uint8]
    inputs: NDArray[np.uint8]

    def order(self) -> NDArray[np.int64]:
        """(rows * columns,) the kernels, group after group."""
        return np.argsort((self.outputs[:, None] + self.inputs).ravel(), kind="stable")

    def group_sizes(self) -> list[int]:
        """How many kernels each group has, without those that have none."""
        counts = np.convolve(np.bincount(self.outputs), np.bincount(self.inputs))
        return [n for n in counts.tolist() if n]


def read_channels(cursor: Cursor, outputs: int, inputs: int) -> Channels:
    """The levels at the cursor.

    Raises:
        ModelError: the bytes end early, or a half that is not used is not zero.
    """
    count = outputs + inputs
    pairs = cursor.array(np.dtype(np.uint8), (count + 1) // 2)
    levels = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()
    if levels[count:].any():
        raise cursor.error("something follows the levels of the channels")
    return Channels(levels[:outputs], levels[outputs:count])


SCALE_BITS = 12
SCALE = 1 << SCALE_BITS
WORD_BITS = 16
LOW = 1 << WORD_BITS
"""Below it a state takes a word."""
WORD, STATE = np.dtype("<u2"), np.dtype("<u4")


@dataclass(frozen=True, slots=True, eq=False)
class RansStream:
    """One stream of symbols in interleaved rANS.

    Attributes:
        size: symbols in it.
        frequencies: (alphabet,) that add up to ``SCALE``.
        states: (lanes,) from which decoding begins.
        lane_words: (lanes,) words of each lane.
        words: of the lanes, one after another.
    """

    size: int
    frequencies: NDArray[np.int64]
    states: NDArray[np.int64]
    lane_words: NDArray[np.int64]
    words: NDArray[np.uint16]


def read_rans(cursor: Cursor, size: int, alphabet: int) -> RansStream:
    """The stream at the cursor; its codes are not decoded yet.

    Raises:
        ModelError: the bytes are damaged.
    """
    frequencies = cursor.numbers(alphabet)
    if sum(frequencies) != SCALE:
        raise cursor.error(f"the frequencies add up to {sum(frequencies)}, not {SCALE}")
    lane_words = cursor.array(WORD, lane_count(size)).astype(np.int64)
    states = cursor.array(STATE, len(lane_words)).astype(np.int64)
    if (states < LOW).any():
        raise cursor.error("a state is too small")
    words = cursor.array(WORD, int(lane_words.sum()))
    return RansStream(size, np.array(frequencies, np.int64), states, lane_words, words)


def decode_rans(streams: Sequence[RansStream]) -> list[NDArray[np.uint16]]:
    """The symbols of many streams, side by side.

    Raises:
        ModelError: frequencies do not add up, or a lane does not end as it began.
    """
    plan = schedule([stream.size for stream in streams])
    lanes = [lane_count(stream.size) for stream in streams]
    symbol_of, frequency_of, offset_of = _tables(streams)
    base = np.repeat(np.arange(len(streams)) * SCALE, lanes)[plan.order]
    none = np.zeros(0, np.int64)
    state = np.concatenate([none, *(s.states for s in streams)])[plan.order]
    sizes = np.concatenate([none, *(s.lane_words for s in streams)])
    at, end = (np.cumsum(sizes) - sizes)[plan.order], np.cumsum(sizes)[plan.order]
    # A damaged lane may run on, by a word a step at most: there must be something to read.
    words = np.concatenate([*(s.words for s in streams), np.zeros(plan.steps + 1, WORD)])
    words = words.astype(np.int64)
    symbols = np.zeros((plan.steps, len(at)), np.uint16)
    for first, last, count in plan.phases:
        x, place, offset = state[:count], at[:count], base[:count]
        for step in range(first, last):
            slot = (x & (SCALE - 1)) + offset
            symbols[step, :count] = symbol_of[slot]
            x >>= SCALE_BITS
            x *= frequency_of[slot]
            x += offset_of[slot]
            low = np.flatnonzero(x < LOW)
            where = place[low]
            x[low] = x[low] << WORD_BITS | words[where]
            place[low] = where + 1
    if (state != LOW).any() or (at != end).any():
        raise ModelError("the codes are damaged: they do not end where their bytes do")
    return list(plan.split(symbols))


def _tables(streams: Sequence[RansStream]) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64]]:
    """For each slot, table after table: its symbol, that one's frequency, place within it."""
    symbols = np.zeros(len(streams) * SCALE, np.uint16)
    frequencies, offsets = (np.zeros(len(streams) * SCALE, np.int64) for _ in range(2))
    for i, stream in enumerate(streams):
        f = stream.frequencies
        if f.min(initial=0) < 0 or f.sum() != SCALE:
            raise ModelError(f"the frequency table is damaged: it adds up to {f.sum()}")
        mine = slice(i * SCALE, (i + 1) * SCALE)
        symbols[mine] = np.repeat(np.arange(len(f), dtype=np.uint16), f)
        frequencies[mine] = np.repeat(f, f)
        offsets[mine] = np.arange(SCALE) - np.repeat(np.cumsum(f) - f, f)
    return symbols, frequencies, offsets
