"""Huffman coding with canonical codes of limited length.

D. A. Huffman, "A Method for the Construction of Minimum-Redundancy Codes", 1952; canonical
codes as in RFC 1951, section 3.2.2: the lengths alone fix the codes, shorter ones first and
those of one length in the order of the symbols. The length limit is held by package-merge
(Larmore and Hirschberg, 1990), which is optimal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError

# ---- lanes: Lanes: a stream of symbols dealt to several coders, so that NumPy decodes them side

LANE_SYMBOLS = 2048


def lane_count(symbols: int) -> int:
    """How many lanes a stream has."""
    return -(-symbols // LANE_SYMBOLS)


def lane_symbols(symbols: int) -> NDArray[np.int64]:
    """(lanes,) how many symbols each lane has; the first ones may have one more."""
    lanes = lane_count(symbols)
    if not lanes:
        return np.zeros(0, np.int64)
    return np.full(lanes, symbols // lanes) + (np.arange(lanes) < symbols % lanes)


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Which lanes of many streams take part in which step.

    Attributes:
        order: (lanes,) places of the lanes (stream after stream), longest lane first.
        phases: (first step, end, lanes): in these steps so many lanes, from the front of
            ``order``, have a symbol.
        sizes: symbols of each stream.
    """

    order: NDArray[np.int64]
    phases: tuple[tuple[int, int, int], ...]
    sizes: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Of the longest lane."""
        return self.phases[-1][1] if self.phases else 0

    def split(self, table: NDArray[np.uint16]) -> Iterator[NDArray[np.uint16]]:
        """The symbols of each stream.

        Args:
            table: (steps, lanes) in the order of ``order``.
        """
        back = np.argsort(self.order)
        first = 0
        for size in self.sizes:
            lanes = lane_count(size)
            rows = -(-size // lanes) if lanes else 0
            yield table[:rows, back[first : first + lanes]].ravel()[:size]
            first += lanes


def schedule(sizes: Sequence[int]) -> Schedule:
    """The steps in which streams of so many symbols are decoded together."""
    counts = np.concatenate([np.zeros(0, np.int64), *map(lane_symbols, sizes)])
    order = np.argsort(-counts, kind="stable")
    phases, start = [], 0
    for end in np.unique(counts).tolist():
        phases.append((start, end, int(np.count_nonzero(counts >= end))))
        start = end
    return Schedule(order, tuple(phases), tuple(sizes))


# ---- huffman: Huffman coding with canonical codes of limited length.

MAX_LENGTH = 12
"""Bits of a code in a container: its decoding table of 4096 rows stays in the cache."""


def code_lengths(counts: NDArray[np.int64], max_length: int = MAX_LENGTH) -> NDArray[np.int64]:
    """The lengths of the best prefix code.

    Args:
        counts: (symbols,) how often each occurs; at most 2^max_length occur at all.
        max_length: of a code, in bits; ``decode`` takes up to ``MAX_LENGTH``.

    Returns:
        (symbols,) bits; 0 for a symbol that does not occur, 1 for one that is alone.
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.int64)
    if len(used) < 2:
        lengths[used] = 1
        return lengths
    if len(used) > 1 << max_length:
        raise ValueError(f"{len(used)} symbols need codes of more than {max_length} bits")
    # Each package is (count, the symbols in it, with repetition).
    coins: list[tuple[int, tuple[int, ...]]]
    coins = sorted((int(counts[symbol]), (symbol,)) for symbol in used.tolist())
    packages = coins
    for _ in range(max_length - 1):
        pairs = zip(packages[::2], packages[1::2], strict=False)
        packages = sorted(coins + [(a[0] + b[0], a[1] + b[1]) for a, b in pairs])
    for _, symbols in packages[: 2 * len(used) - 2]:
        np.add.at(lengths, list(symbols), 1)
    return lengths


def canonical_codes(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(symbols,) the codes that the lengths fix; 0 where there is none.

    Raises:
        ModelError: the lengths belong to no prefix code, or leave room for another symbol
            (a single symbol of one bit excepted).
    """
    used = np.flatnonzero(lengths)
    top = int(lengths.max(initial=0))
    room = (1 << top) - int(np.sum(1 << (top - lengths[used])))  # Kraft's inequality, times 2^top
    if room < 0 or (room and not (len(used) == 1 and top == 1)) or not len(used):
        raise ModelError("the code table is damaged: its lengths form no full prefix code")
    order = used[np.argsort(lengths[used], kind="stable")]
    steps = 1 << (top - lengths[order])
    codes = np.zeros(len(lengths), np.int64)
    codes[order] = (np.cumsum(steps) - steps) >> (top - lengths[order])
    return codes


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """One stream of symbols, coded.

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


def encode(symbols: NDArray[np.uint16], lengths: NDArray[np.int64]) -> Coded:
    """Code symbols, each of which has a code; bits fill a byte from its highest."""
    codes = canonical_codes(lengths)
    parts, sizes = [], []
    lanes = lane_count(len(symbols))
    for lane in range(lanes):
        mine = symbols[lane::lanes]
        bits = lengths[mine]
        column = np.arange(int(bits.max()))
        left = bits[:, None] - 1 - column  # how far each bit of a code is from its last
        table = (codes[mine][:, None] >> np.maximum(left, 0)) & 1
        parts.append(np.packbits(table[left >= 0].astype(np.uint8)).tobytes())
        sizes.append(len(parts[-1]))
    return Coded(len(symbols), lengths, np.array(sizes, np.int64), b"".join(parts))


def decode(streams: Sequence[Coded]) -> list[NDArray[np.uint16]]:
    """The symbols of many streams, side by side.

    Raises:
        ModelError: a code table is none, or a lane does not end with its bytes.
    """
    plan = schedule([stream.size for stream in streams])
    windows, starts = _windows(streams)
    tables, bases = _tables(streams)
    lanes = [lane_count(stream.size) for stream in streams]
    base = np.repeat(bases, lanes)[plan.order]
    start = starts[plan.order] * 8
    at = start.copy()
    symbols = np.zeros((plan.steps, len(at)), np.uint16)
    for first, end, count in plan.phases:
        places, offset, out = at[:count], base[:count], symbols[:, :count]
        for step in range(first, end):
            code = windows[places >> 3] >> (24 - MAX_LENGTH - (places & 7))
            hit = tables[(code & ((1 << MAX_LENGTH) - 1)) + offset]
            out[step] = hit & 0xFFFF
            places += hit >> 16
    size = np.concatenate([np.zeros(0, np.int64), *(s.lane_bytes for s in streams)])[plan.order]
    if (at > start + 8 * size).any() or (at <= start + 8 * (size - 1)).any():
        raise ModelError("the codes are damaged: they do not end where their bytes do")
    return list(plan.split(symbols))


def _windows(streams: Sequence[Coded]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The 24 bits from each byte on, and where the lanes start; damaged codes find zeros."""
    longest = max((int(lane_symbols(s.size).max(initial=0)) for s in streams), default=0)
    content = b"".join(s.content for s in streams) + bytes(longest * MAX_LENGTH // 8 + 4)
    octets = np.frombuffer(content, np.uint8).astype(np.int64)
    windows = octets[:-2] << 16 | octets[1:-1] << 8 | octets[2:]
    sizes = np.concatenate([np.zeros(0, np.int64), *(s.lane_bytes for s in streams)])
    return windows, np.cumsum(sizes) - sizes


def _tables(streams: Sequence[Coded]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(bits << 16 | symbol) for each 12 bits, table after table, and where each table begins."""
    size = 1 << MAX_LENGTH
    tables = np.zeros(len(streams) * size, np.int64)
    for i, stream in enumerate(streams):
        canonical_codes(stream.lengths)  # that they are a prefix code
        order = np.argsort(stream.lengths, kind="stable")
        order = order[stream.lengths[order] > 0]
        bits = stream.lengths[order]
        filled = np.repeat(bits << 16 | order, 1 << (MAX_LENGTH - bits))
        tables[i * size : i * size + len(filled)] = filled
    return tables, np.arange(len(streams), dtype=np.int64) * size
