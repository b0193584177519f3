"""Lanes: a stream of symbols dealt to several coders, so that NumPy decodes them side by side.

Symbol i of a stream belongs to lane i mod (number of lanes), so each lane has at most
``LANE_SYMBOLS`` symbols, and the lanes of all streams of a model are decoded in as many steps.
A lane costs a few bytes, a step a dozen calls of NumPy: 2048 makes SqueezeDet a thousand lanes,
about 1 % of its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
