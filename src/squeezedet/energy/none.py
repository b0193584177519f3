"""No meter: processor seconds in place of joules, and a sentence that says so."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from squeezedet.energy.measurement import Measurement
from squeezedet.energy.reading import Reading


def cpu_time_s() -> float:
    """Processor time of this process, all its threads, and its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class NoMeter:
    """Counts processor time, which needs no sensor and nobody's permission."""

    name = "none"
    source = "no energy meter"

    def idle_power_w(self, duration_s: float) -> float | None:
        """None: there is no power to look at."""
        return None

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Take processor time before and after the block."""
        measurement = Measurement()
        start_s, before_s = time.perf_counter(), cpu_time_s()
        yield measurement
        cpu_s = cpu_time_s() - before_s
        duration_s = time.perf_counter() - start_s

        def read(frames: int) -> Reading:
            return Reading(
                source=self.source,
                how="user and system time of this process, its threads and ended children",
                frames=frames,
                duration_s=duration_s,
                energy_j=None,
                cpu_s=cpu_s,
            )

        measurement.finish(read)
