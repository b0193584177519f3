"""Timings to figures: medians, percentiles, and ratios that come with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LOW, HIGH = 5, 95
"""The percentiles between which a spread is given."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Some measurements of one thing, in their own unit.

    Percentiles lie between neighbouring measurements in proportion (NumPy's ``linear``).
    """

    n: int
    median: float
    p5: float
    p95: float
    mean: float
    minimum: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as much as the first: the median over the rounds, and 5 to 95 % of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def summarize(values: Sequence[float]) -> Summary:
    """The figures of some measurements.

    Raises:
        ValueError: there are none.
    """
    if not len(values):
        raise ValueError("nothing was measured")
    low, median, high = np.percentile(values, (LOW, 50, HIGH))
    return Summary(
        len(values), float(median), float(low), float(high), float(np.mean(values)), min(values)
    )


def ratio(mine: Sequence[float], first: Sequence[float]) -> Ratio:
    """Mine over the first's, round by round.

    The two of one round were measured one after the other on the same frame, so what slows the
    machine for longer than a round cancels out; the ratio of the medians would not have that.

    Args:
        mine: one measurement a round.
        first: as many, none of them 0.

    Raises:
        ValueError: there are none, or not as many of both.
    """
    found = summarize([a / b for a, b in zip(mine, first, strict=True)])
    return Ratio(found.median, found.p5, found.p95)
