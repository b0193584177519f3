"""Joules per frame: a reading with its source, the meters, and which one is taken.

A meter must measure the machine that computes: joules of a card say nothing of a network on the
processor. So ``auto`` takes NVML for networks on a card, RAPL for those on the processor, and no
meter where that one does not work.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, NamedTuple, Self

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
        ValueError: a figure is no measurement: no frame, no time, not finite.
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
        figures = (self.duration_s, self.energy_j, self.idle_w, self.cpu_s)
        sound = all(math.isfinite(figure) and figure >= 0 for figure in figures if figure is not None)
        if not sound or self.frames < 1 or self.duration_s == 0:
            raise ValueError(f"no measurement: {figures} of {self.frames} frames")

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


class Meter:
    """One source of energy, by a counter of joules unless it says otherwise.

    Attributes:
        name: one of ``NAMES``.
        source: what it measures, in a few words.
        how: the figure is found, for the reading.
    """

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
        """Watch a block of code; its ``reading(frames=n)`` is what it cost, idle included."""
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
        """Mean power while nothing is done for that long, for ``EnergyReading.less_idle``; None if unknown."""
        with self.measure() as measurement:
            time.sleep(duration_s)
        return measurement.reading(frames=1).power_w


class NoMeter(Meter):
    """Counts processor time, which needs no sensor and nobody's permission."""

    name = "none"
    source = "no energy meter"
    how = "user and system time of this process, its threads and ended children"

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Take processor time before and after the block."""
        measurement = Measurement()
        start_s, before = time.perf_counter(), os.times()
        yield measurement
        duration_s, after = time.perf_counter() - start_s, os.times()
        cpu_s = sum(after[:4]) - sum(before[:4])  # user and system, its own and its children's
        measurement.read = lambda frames: EnergyReading(
            source=self.source, how=self.how, frames=frames, duration_s=duration_s, energy_j=None, cpu_s=cpu_s
        )

    def idle_power_w(self, duration_s: float) -> float | None:
        """None: there is no power to look at."""
        return None


# ------------------------------------------------------------ which meter

AUTO = "auto"
NAMES = ("nvml", "nvml-counter", "rapl", "log", "none")
FOR_DEVICE = {"cuda": "nvml", "cpu": "rapl"}
Device = Literal["cpu", "cuda"]


class ChosenMeter(NamedTuple):
    """A meter, and one sentence that says why this one."""

    meter: Meter
    why: str


class Probe(NamedTuple):
    """Whether a meter works on this machine: what it measures, or why it does not."""

    name: str
    works: bool
    sentence: str


def choose(
    name: str = AUTO, *, device: Device = "cpu", card: int | None = None, log: Path | None = None
) -> ChosenMeter:
    """The meter of a name, or the one that measures what computes.

    Args:
        name: one of ``NAMES``, or "auto".
        device: where the network runs; matters to "auto".
        card: which NVIDIA card; None for the only one.
        log: a recorded power log; with "auto" it is taken.

    Raises:
        UsageError: no such meter, or the log is missing or not for this one.
        SqueezeDetError: a meter that was asked for by name does not work, with the reason.
    """
    if name not in (AUTO, *NAMES):
        close = get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise UsageError(f"no meter {name!r}{hint} There are: auto, {', '.join(NAMES)}")
    if log is not None and name not in (AUTO, "log"):
        raise UsageError(f"a power log is read by the meter log, not by {name}")
    if name != AUTO:
        return ChosenMeter(_open(name, card, log), f"{name}, as asked for")
    if log is not None:
        return ChosenMeter(_open("log", card, log), "log, as a power log is given")
    wanted, place = FOR_DEVICE[device], "a card" if device == "cuda" else "the processor"
    try:
        return ChosenMeter(_open(wanted, card), f"{wanted}, as the network runs on {place}")
    except SqueezeDetError as error:
        why = f"none, as the network runs on {place} and {wanted} does not work here: {error}"
        return ChosenMeter(NoMeter(), why)


def probe() -> list[Probe]:
    """Every meter, in the order of ``NAMES``: does it work here, and if not, why."""
    found = []
    for name in NAMES:
        try:
            sentence = "any recorded power log" if name == "log" else _open(name).source
            found.append(Probe(name, True, sentence))
        except SqueezeDetError as error:
            found.append(Probe(name, False, str(error)))
    return found


def _open(name: str, card: int | None = None, log: Path | None = None) -> Meter:
    from squeezedet.benchmark import nvml, power_log, rapl

    match name:
        case "nvml":
            return nvml.NvmlMeter(card)
        case "nvml-counter":
            return nvml.NvmlCounterMeter(card)
        case "rapl":
            return rapl.RaplMeter()
        case "log":
            if log is None:
                raise UsageError("the meter log reads a recorded power log; name it: `power_log`")
            return power_log.LogMeter(log)
    return NoMeter()
