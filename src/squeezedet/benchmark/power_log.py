"""A recorded power log: CSV with the columns ``time_s`` and ``power_w``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.benchmark.power_curve import WORKING_W, WorkingPeriod, working_period
from squeezedet.benchmark.reading import EnergyReading, Measurement
from squeezedet.errors import DataError, SqueezeDetError, UsageError
from squeezedet.files import read_text

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
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path}:{number}"
        cells = line.split(",")
        if len(cells) != 2:
            raise DataError(f"{where}: {line[:60]!r} is not a time and a power, as in 0.1,80.9")
        time_s = _figure(cells[0], f"{where}: time_s", -LONGEST_TIME_S, LONGEST_TIME_S)
        if times and time_s <= times[-1]:
            raise DataError(f"{where}: time_s {time_s:g} does not come after {times[-1]:g}")
        times.append(time_s)
        powers.append(_figure(cells[1], f"{where}: power_w", 0.0, HIGHEST_POWER_W))
    if not times:
        raise DataError(f"{path}: the log has no samples")
    return np.array(times), np.array(powers)


def _figure(text: str, where: str, lowest: float, highest: float) -> float:
    try:
        if "_" in text:  # Python's 1_000
            raise ValueError
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {text[:40]!r} is not a number") from None
    if not math.isfinite(value):
        raise DataError(f"{where}: {text[:40]} is not finite")
    if not lowest <= value <= highest:
        raise DataError(f"{where}: {value:g} is not in {lowest:g} to {highest:g}")
    return value


class LogMeter:
    """The supplement's method on a log that was recorded while the frames were processed.

    Frames per second are the frames over the time of the working period; the block that is measured may be empty.

    Raises:
        DataError: the file is no log, or has no working period.
        UsageError: the threshold is not a positive number.
    """

    name = "log"

    def __init__(self, path: Path, working_w: float = WORKING_W) -> None:
        if not 0 < working_w <= HIGHEST_POWER_W:
            raise UsageError(f"the threshold of work is a number of watts, not {working_w:g}")
        times_s, power_w = read(path)
        self.source = f"power log {path}"
        try:
            self.period: WorkingPeriod = working_period(times_s, power_w, working_w=working_w)
        except SqueezeDetError as error:
            raise DataError(f"{path}: {error}") from error

    def idle_power_w(self, duration_s: float) -> float | None:
        """Median power outside the working periods; ``duration_s`` does not matter."""
        return self.period.idle_w

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """A block whose reading is that of the log."""
        measurement = Measurement()
        yield measurement
        measurement.read = self._reading

    def _reading(self, frames: int) -> EnergyReading:
        period = self.period
        return EnergyReading(
            source=self.source,
            how=period.how,
            frames=frames,
            duration_s=period.duration_s,
            energy_j=period.power_w * period.duration_s,
            idle_w=period.idle_w,
        )
