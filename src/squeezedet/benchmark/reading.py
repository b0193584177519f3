"""The result of a measurement: a number with its source and what was done about idle power."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Self

from squeezedet.errors import SqueezeDetError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReading:
    """What some frames cost.

    Attributes:
        source: the meter and what it measures: "card 0, NVIDIA TITAN X".
        how: how the figure was found, one sentence without its full stop.
        frames: frames that were processed, 1 at least.
        duration_s: the time they took.
        energy_j: what they took together; None where there is no meter.
        idle_w: power of the same source doing nothing; None if it was not measured.
        idle_subtracted: whether ``idle_w`` for ``duration_s`` has been taken off ``energy_j``.
        cpu_s: processor time of this process and its children; None if it was not taken.

    Raises:
        ValueError: a number without a source, an idle power that is subtracted but not known, or a figure that is
            no measurement (no frame, no time, not finite).
    """

    source: str
    how: str
    frames: int
    duration_s: float
    energy_j: float | None
    idle_w: float | None = None
    idle_subtracted: bool = False
    cpu_s: float | None = None

    def __post_init__(self) -> None:
        if not self.source or not self.how:
            raise ValueError("a reading names its source and says how it was found")
        if self.idle_subtracted and (self.idle_w is None or self.energy_j is None):
            raise ValueError("idle power that is subtracted is a number, and so is the energy")
        figures = (self.duration_s, self.energy_j, self.idle_w, self.cpu_s)
        if not all(math.isfinite(figure) and figure >= 0 for figure in figures if figure is not None):
            raise ValueError(f"no measurement: {self}")
        if self.frames < 1 or self.duration_s == 0:
            raise ValueError(f"{self.frames} frames in {self.duration_s} s are no measurement")

    @property
    def power_w(self) -> float | None:
        """Mean power over the time of the frames, less idle if that was subtracted."""
        return None if self.energy_j is None else self.energy_j / self.duration_s

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.duration_s

    @property
    def energy_per_frame_j(self) -> float | None:
        """Joules per frame: watts / frames per second."""
        return None if self.energy_j is None else self.energy_j / self.frames

    @property
    def cpu_per_frame_s(self) -> float | None:
        return None if self.cpu_s is None else self.cpu_s / self.frames

    @property
    def idle(self) -> str:
        """What was done about idle power, in words."""
        if self.energy_j is None:
            return "no energy, so no idle power to subtract"
        if self.idle_w is None:
            return "idle power not measured, not subtracted"
        done = "subtracted" if self.idle_subtracted else "not subtracted"
        return f"idle power of {self.idle_w:.1f} W {done}"

    def less_idle(self, idle_w: float) -> EnergyReading:
        """The same reading with the energy of an idle machine, whose power is ``idle_w``, taken off.

        Raises:
            ValueError: idle power has been subtracted already, or there is no energy.
            SqueezeDetError: ``idle_w`` is above the mean power, so the machine was not at rest.
        """
        if self.energy_j is None or self.power_w is None or self.idle_subtracted:
            raise ValueError(f"nothing to subtract from: {self.idle}")
        if idle_w > self.power_w:
            raise SqueezeDetError(
                f"{self.source}: the idle power of {idle_w:.1f} W is above the mean power of "
                f"{self.power_w:.1f} W; measure it again while the machine does nothing else"
            )
        energy_j = self.energy_j - idle_w * self.duration_s
        return replace(self, energy_j=energy_j, idle_w=idle_w, idle_subtracted=True)

    def record(self) -> dict[str, str | int | float | bool | None]:
        """Every figure by name, for JSON."""
        derived = ("power_w", "frames_per_s", "energy_per_frame_j", "cpu_per_frame_s", "idle")
        return asdict(self) | {name: getattr(self, name) for name in derived}

    def __str__(self) -> str:
        """One line; its number never stands without source and idle power."""
        if self.energy_per_frame_j is not None:
            cost = f"{self.energy_per_frame_j:.4g} J per frame"
        elif self.cpu_per_frame_s is not None:
            cost = f"{self.cpu_per_frame_s:.4g} CPU seconds per frame"
        else:
            cost = "nothing measured"
        return f"{cost} ({self.source}; {self.idle}; {self.how})"


# ------------------------------------------------------------ a measured block


class Measurement:
    """What ``with meter.measure() as measurement`` gives; the meter sets ``read`` when the block has ended."""

    read: Callable[[int], EnergyReading] | None = None

    def reading(self, frames: int) -> EnergyReading:
        """The cost of the block, which processed so many frames.

        Raises:
            UsageError: no frame.
            SqueezeDetError: the meter has no figure for this block, with the reason.
            RuntimeError: the block has not ended, or ended with an error.
        """
        if self.read is None:
            raise RuntimeError("a measurement has a reading after its block has ended well")
        if frames < 1:
            raise UsageError(f"frames: there must be 1 at least, not {frames}")
        return self.read(frames)


class Sampler:
    """Calls a function in a thread at the start of the block, then every interval; it gets the seconds since then.

    Times are multiples of the interval from the start, so that delays do not add up; those that a busy machine missed
    are left out. What the function raises ends the thread, and ``check`` raises it again.
    """

    def __init__(self, interval_s: float, take: Callable[[float], object]) -> None:
        self._interval_s = interval_s
        self._take = take
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="energy sampler", daemon=True)

    def __enter__(self) -> Self:
        self._start_s = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.duration_s = time.perf_counter() - self._start_s  # before waiting for the thread
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what the function raised, if it did."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        turn = 0
        try:
            while True:
                self._take(time.perf_counter() - self._start_s)
                passed_s = time.perf_counter() - self._start_s
                turn = max(turn + 1, math.ceil(passed_s / self._interval_s))
                if self._ended.wait(turn * self._interval_s - passed_s):
                    return
        except Exception as error:  # whatever it is, it belongs to the thread that asked
            self._failure = error


class CounterMeter:
    """A meter of something that counts joules: what it counted over the whole block."""

    name: str
    source: str
    how: str
    look_s = 10.0
    """How often the counter is looked at, as it may start again at 0."""

    def counter(self) -> Callable[[], float]:
        """A function that gives the joules since now."""
        raise NotImplementedError

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Read the counter before and after the block, and now and then in between."""
        measurement = Measurement()
        passed_j, start_s = self.counter(), time.perf_counter()
        with Sampler(self.look_s, lambda _: passed_j()) as sampler:
            yield measurement
        energy_j, duration_s = passed_j(), time.perf_counter() - start_s

        def read(frames: int) -> EnergyReading:
            sampler.check()
            if energy_j <= 0:
                raise SqueezeDetError(f"{self.source}: it did not move in {duration_s:.3f} s; measure longer")
            return EnergyReading(
                source=self.source, how=self.how, frames=frames, duration_s=duration_s, energy_j=energy_j
            )

        measurement.read = read

    def idle_power_w(self, duration_s: float) -> float | None:
        """Mean power while nothing is done here for ``duration_s``."""
        with self.measure() as measurement:
            time.sleep(duration_s)
        return measurement.reading(frames=1).power_w
