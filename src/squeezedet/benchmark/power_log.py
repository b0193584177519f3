"""A recorded power log, and the method of the paper's supplement, section 3: from a curve of power to joules per frame.

Samples of at least 20 W are the working period, the mean of its middle third is the average power, and joules per
frame = watts / frames per second. Idle power is not subtracted. What the supplement leaves open: docs/energy.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from squeezedet.data.sample import number
from squeezedet.errors import DataError, SqueezeDetError
from squeezedet.files import read_text

INTERVAL_S = 0.1
WORKING_W = 20.0
LONGEST_DIP_S = 1.0
FEWEST_SAMPLES = 3
"""One for each third."""
ROUNDING_DIGITS = 6
ROUNDING_S = 10**-ROUNDING_DIGITS
"""Times in text, and multiples of 0.1, are no better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingPeriod:
    """The part of a curve in which the network works.

    Attributes:
        power_w: mean power of the middle third.
        middle_samples: samples in the middle third.
        samples: samples in the whole period.
        start_s: time of its first sample.
        duration_s: time that its samples stand for.
        periods: how many periods the curve has; this is the longest.
        idle_w: median power of the samples below the threshold outside of all periods; None if
            there are none.
        working_w: the threshold.
    """

    power_w: float
    middle_samples: int
    samples: int
    start_s: float
    duration_s: float
    periods: int
    idle_w: float | None
    working_w: float

    @property
    def how(self) -> str:
        """The method in one sentence, without its full stop."""
        which = f", the longest of {self.periods} periods" if self.periods > 1 else ""
        idle = "" if self.idle_w is not None else "; no sample outside, so idle is not told apart"
        return (
            f"mean of the middle third ({self.middle_samples} samples) of the working period, "
            f"{self.duration_s:.1f} s of at least {self.working_w:g} W{which}{idle}"
        )


def working_period(times_s: ArrayLike, power_w: ArrayLike, *, working_w: float = WORKING_W) -> WorkingPeriod:
    """Find the working period of a curve and the mean power of its middle third.

    Args:
        times_s: (n,), rising.
        power_w: (n,), finite.
        working_w: the least power that is work.

    Raises:
        SqueezeDetError: no sample is work, or too few are to be cut in three.
        ValueError: the two do not fit together, or time does not rise.
    """
    times, power = np.asarray(times_s, np.float64), np.asarray(power_w, np.float64)
    if times.ndim != 1 or times.shape != power.shape or not (np.diff(times) > 0).all():
        raise ValueError("a power curve is one power for each time, and time rises")
    at_work = np.flatnonzero(power >= working_w)
    if not len(at_work):
        highest = f"the highest of {len(power):,} has {power.max():.1f} W" if len(power) else "none"
        raise SqueezeDetError(
            f"no working period: no power sample reaches {working_w:g} W ({highest}); "
            "choose a lower threshold if the machine was at work"
        )
    periods = _periods(times, at_work)
    # The time that each sample stands for: half the way to its neighbors; of a single one nothing is known.
    shares_s = [np.gradient(times[one]) if one.stop - one.start > 1 else np.zeros(1) for one in periods]
    durations_s = np.round([share_s.sum() for share_s in shares_s], ROUNDING_DIGITS)
    longest = int(np.argmax(durations_s))
    period, share_s = periods[longest], shares_s[longest]
    middle = _middle_third(times[period])
    outside = np.ones(len(times), bool)
    for working in periods:
        outside[working] = False
    return WorkingPeriod(
        power_w=float(np.average(power[period][middle], weights=share_s[middle])),
        middle_samples=middle.stop - middle.start,
        samples=period.stop - period.start,
        start_s=float(times[period.start]),
        duration_s=float(durations_s[longest]),
        periods=len(periods),
        idle_w=float(np.median(power[outside])) if outside.any() else None,
        working_w=working_w,
    )


def _periods(times: NDArray[np.float64], at_work: NDArray[np.intp]) -> list[slice]:
    """The samples of each run of work, over short dips."""
    # Two samples of work that follow each other are one interval apart, with a dip in between one interval and the dip.
    usual_s = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    before, after = at_work[:-1], at_work[1:]
    cut = times[after] - times[before] > usual_s + LONGEST_DIP_S + ROUNDING_S
    starts = [int(at_work[0]), *(int(i) for i in after[cut])]
    ends = [*(int(i) for i in before[cut]), int(at_work[-1])]
    return [slice(start, end + 1) for start, end in zip(starts, ends, strict=True)]


def _middle_third(times: NDArray[np.float64]) -> slice:
    """The samples in the middle third of a period's time, both ends included."""
    third_s = (times[-1] - times[0]) / 3
    low = int(np.searchsorted(times, times[0] + third_s - ROUNDING_S))
    high = int(np.searchsorted(times, times[-1] - third_s + ROUNDING_S, side="right"))
    if len(times) < FEWEST_SAMPLES or low >= high:
        raise SqueezeDetError(
            f"the working period of {times[-1] - times[0]:.2f} s has too few power samples "
            f"({len(times)}) for a mean of its middle third; measure longer"
        )
    return slice(low, high)


# ------------------------------------------------------------ a recorded log

HEADER = "time_s,power_w"
LONGEST_TIME_S = 1e12
"""Room for seconds since 1970."""
HIGHEST_POWER_W = 1e6


def read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times in seconds, rising, and powers in watts, each (n,); read strictly: the header, then both on each line.

    Raises:
        DataError: the file, or a line of it, is no such log, with file and line.
    """
    lines = read_text(path, "power log").split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines or lines[0] != HEADER:
        found = repr(lines[0][:60]) if lines else "an empty file"
        raise DataError(f"{path}:1: the first line must be {HEADER!r}, not {found}")
    times: list[float] = []
    powers: list[float] = []
    for line_number, line in enumerate(lines[1:], start=2):
        where = f"{path}:{line_number}"
        cells = line.split(",")
        if len(cells) != 2:
            raise DataError(f"{where}: {line[:60]!r} is not a time and a power, as in 0.1,80.9")
        time_s = number(cells[0], f"{where}: time_s", LONGEST_TIME_S)
        power_w = number(cells[1], f"{where}: power_w", HIGHEST_POWER_W)
        if times and time_s <= times[-1]:
            raise DataError(f"{where}: time_s {time_s:g} does not come after {times[-1]:g}")
        if power_w < 0:
            raise DataError(f"{where}: power_w {power_w:g} is below 0")
        times.append(time_s)
        powers.append(power_w)
    if not times:
        raise DataError(f"{path}: the log has no samples")
    return np.array(times), np.array(powers)
