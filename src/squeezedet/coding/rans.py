"""Interleaved rANS: an entropy coder that comes within a hundredth of the entropy.

J. Duda, "Asymmetric numeral systems", arXiv 1311.2540; the range variant with renormalisation
by words as in F. Giesen, "Interleaved entropy coders", arXiv 1402.3392. Each lane has a state
of 32 bits, which a word of 16 bits refills; the frequencies of a stream add up to 4096. A state
starts (for the encoder) and ends (for the decoder) at 2^16, which shows most damage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding.lanes import lane_count, schedule
from squeezedet.errors import ModelError

SCALE_BITS = 12
SCALE = 1 << SCALE_BITS
WORD_BITS = 16
LOW = 1 << WORD_BITS
"""Below it a state takes a word."""
WORD, STATE = np.dtype("<u2"), np.dtype("<u4")


def quantise(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Frequencies that add up to ``SCALE``, at least 1 for each symbol that occurs.

    Args:
        counts: (symbols,) how often each occurs; at least one and at most ``SCALE`` do.
    """
    used = counts > 0
    exact = counts * (SCALE / counts.sum())
    frequencies = np.where(used, np.maximum(np.rint(exact), 1), 0).astype(np.int64)
    while (excess := int(frequencies.sum()) - SCALE) != 0:
        # Where one step costs least (or brings most): the derivative of -count * log(frequency).
        step = -1 if excess > 0 else 1
        can = used & (frequencies + step >= 1)
        cost = np.full(len(counts), np.inf)
        cost[can] = -counts[can] * np.log((frequencies[can] + step) / frequencies[can])
        frequencies[np.argmin(cost)] += step
    return frequencies


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """One stream of symbols, coded.

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


def encode(symbols: NDArray[np.uint16], frequencies: NDArray[np.int64]) -> Coded:
    """Code symbols, each of which has a frequency."""
    lanes = lane_count(len(symbols))
    steps = -(-len(symbols) // lanes) if lanes else 0
    flat = np.zeros(steps * lanes, np.int64)
    flat[: len(symbols)] = symbols
    table = flat.reshape(steps, lanes)
    starts = np.cumsum(frequencies) - frequencies
    state = np.full(lanes, LOW, np.int64)
    words, emitted = np.zeros((steps, lanes), WORD), np.zeros((steps, lanes), bool)
    for step in reversed(range(steps)):  # the decoder runs the other way
        count = min(lanes, len(symbols) - step * lanes)
        x, symbol = state[:count], table[step, :count]
        frequency = frequencies[symbol]
        full = x >= frequency << (2 * WORD_BITS - SCALE_BITS)
        emitted[step, :count] = full
        words[step, :count] = x & (LOW - 1)
        x = np.where(full, x >> WORD_BITS, x)
        quotient, rest = np.divmod(x, frequency)
        state[:count] = (quotient << SCALE_BITS) + rest + starts[symbol]
    return Coded(
        len(symbols), frequencies, state, emitted.sum(0, dtype=np.int64), words.T[emitted.T]
    )


def decode(streams: Sequence[Coded]) -> list[NDArray[np.uint16]]:
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


def _tables(
    streams: Sequence[Coded],
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64]]:
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
