"""A stream of symbols as bytes: which coder, its table, its lanes.

docs/container.md has the layout. Whichever coder needs fewer bytes for these counts is taken:
Huffman's table is smaller, rANS's codes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding import huffman, rans
from squeezedet.coding.cursor import Cursor, number_bytes
from squeezedet.coding.lanes import lane_count

CONSTANT, HUFFMAN, RANS = 0, 1, 2
NAMES = {CONSTANT: "constant", HUFFMAN: "huffman", RANS: "rans"}
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


Stream = Constant | huffman.Coded | rans.Coded


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The coder for a stream, before it is coded.

    Attributes:
        method: ``CONSTANT``, ``HUFFMAN`` or ``RANS``.
        table: code lengths or frequencies; empty for a constant.
        size_bytes: what the stream will need, to a few bytes.
    """

    method: int
    table: NDArray[np.int64]
    size_bytes: float


def choose(counts: NDArray[np.int64]) -> Choice:
    """The cheapest coder for symbols that occur so often; at least one does."""
    used = counts > 0
    if np.count_nonzero(used) == 1:
        return Choice(CONSTANT, np.zeros(0, np.int64), 3)
    lanes = lane_count(int(counts.sum()))
    lengths, frequencies = huffman.code_lengths(counts), rans.quantise(counts)
    codes = float(counts @ lengths) / 8 + lanes / 2
    bits = float(counts[used] @ np.log2(rans.SCALE / frequencies[used]))
    table = len(counts) + np.count_nonzero(frequencies >= 0x80)
    # A state holds about eight bits of the codes.
    words = bits / 8 + lanes * (rans.STATE.itemsize - 1)
    choices = (
        Choice(HUFFMAN, lengths, 1 + len(counts) / 2 + lanes * LANE_SIZE.itemsize + codes),
        Choice(RANS, frequencies, 1 + table + lanes * LANE_SIZE.itemsize + words),
    )
    return min(choices, key=lambda choice: choice.size_bytes)


def rough_bytes(counts: NDArray[np.int64]) -> float:
    """About what ``choose`` will find, in a hundredth of the time."""
    used, total = counts[counts > 0], int(counts.sum())
    if len(used) < 2:
        return 3
    bits = float(used @ np.log2(total / used))
    table = min(len(counts), len(counts) / 2 + 0.03 * bits / 8)
    return 1 + table + bits / 8 + 5 * lane_count(total)


def encode(symbols: NDArray[np.uint16], alphabet: int) -> bytes:
    """Code a stream; neither its size nor its alphabet are in the bytes.

    Args:
        symbols: at least one.
        alphabet: they are below it.
    """
    choice = choose(np.bincount(symbols, minlength=alphabet).astype(np.int64))
    head = bytes([choice.method])
    if choice.method == CONSTANT:
        return head + number_bytes(int(symbols[0]))
    if choice.method == HUFFMAN:
        coded = huffman.encode(symbols, choice.table)
        nibbles = np.concatenate([coded.lengths, np.zeros(alphabet % 2, np.int64)])
        table = (nibbles[::2] | nibbles[1::2] << 4).astype(np.uint8)
        lane_bytes = coded.lane_bytes.astype(LANE_SIZE)
        return b"".join([head, table.tobytes(), lane_bytes.tobytes(), coded.content])
    mixed = rans.encode(symbols, choice.table)
    return b"".join(
        [
            head,
            *(number_bytes(f) for f in mixed.frequencies.tolist()),
            mixed.lane_words.astype(LANE_SIZE).tobytes(),
            mixed.states.astype(rans.STATE).tobytes(),
            mixed.words.tobytes(),
        ]
    )


def read(cursor: Cursor, size: int, alphabet: int) -> Stream:
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
        lane_bytes = _lane_sizes(cursor, size)
        return huffman.Coded(
            size, nibbles[:alphabet], lane_bytes, cursor.take(int(lane_bytes.sum()))
        )
    if method == RANS:
        frequencies = cursor.numbers(alphabet)
        if sum(frequencies) != rans.SCALE:
            raise cursor.error(f"the frequencies add up to {sum(frequencies)}, not {rans.SCALE}")
        lane_words = _lane_sizes(cursor, size)
        states = cursor.array(rans.STATE, len(lane_words)).astype(np.int64)
        if (states < rans.LOW).any():
            raise cursor.error("a state is too small")
        words = cursor.array(rans.WORD, int(lane_words.sum()))
        return rans.Coded(size, np.array(frequencies), states, lane_words, words)
    raise cursor.error(f"unknown coder {method}")


def _lane_sizes(cursor: Cursor, size: int) -> NDArray[np.int64]:
    return cursor.array(LANE_SIZE, lane_count(size)).astype(np.int64)


def method_name(stream: Stream) -> str:
    """What a report calls the coder of a stream."""
    kinds = {Constant: CONSTANT, huffman.Coded: HUFFMAN, rans.Coded: RANS}
    return NAMES[kinds[type(stream)]]


def decode(streams: Sequence[Stream]) -> list[NDArray[np.uint16]]:
    """The symbols of many streams, those of one coder side by side.

    Raises:
        ModelError: the codes are damaged.
    """
    found: list[NDArray[np.uint16]] = []
    for first in range(0, len(streams), BATCH):
        found += _decode(streams[first : first + BATCH])
    return found


def _decode(streams: Sequence[Stream]) -> list[NDArray[np.uint16]]:
    tabled = [stream for stream in streams if isinstance(stream, huffman.Coded)]
    mixed = [stream for stream in streams if isinstance(stream, rans.Coded)]
    decoded = {
        huffman.Coded: iter(huffman.decode(tabled)),
        rans.Coded: iter(rans.decode(mixed)),
    }
    return [
        np.full(stream.size, stream.symbol, np.uint16)
        if isinstance(stream, Constant)
        else next(decoded[type(stream)])
        for stream in streams
    ]
