"""What every meter can do, and which one is taken.

A meter must measure the machine that computes: joules of a card say nothing of a network on the
processor. So ``auto`` takes NVML for networks on a card, RAPL for those on the processor, and no
meter where that one does not work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Protocol

from squeezedet.benchmark.reading import EnergyReading, Measurement
from squeezedet.errors import SqueezeDetError, UsageError

# ------------------------------------------------------------ no meter


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
        start_s, before = time.perf_counter(), os.times()
        yield measurement
        duration_s, after = time.perf_counter() - start_s, os.times()

        def read(frames: int) -> EnergyReading:
            return EnergyReading(
                source=self.source,
                how="user and system time of this process, its threads and ended children",
                frames=frames,
                duration_s=duration_s,
                energy_j=None,
                cpu_s=sum(after[:4]) - sum(before[:4]),  # user and system, its own and its children's
            )

        measurement.read = read


# ------------------------------------------------------------ which meter

AUTO = "auto"
NAMES = ("nvml", "nvml-counter", "rapl", "log", "none")
FOR_DEVICE = {"cuda": "nvml", "cpu": "rapl"}
Device = Literal["cpu", "cuda"]


class Meter(Protocol):
    """One source of energy: one of ``NAMES``, and what it measures in a few words."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str: ...

    def measure(self) -> AbstractContextManager[Measurement]:
        """Watch a block of code; its ``reading(frames=n)`` is what it cost, idle included."""
        ...

    def idle_power_w(self, duration_s: float) -> float | None:
        """Power while nothing is done for that long, for ``EnergyReading.less_idle``; None if unknown."""
        ...


@dataclass(frozen=True, slots=True)
class ChosenMeter:
    """A meter, and one sentence that says why this one."""

    meter: Meter
    why: str


@dataclass(frozen=True, slots=True)
class Probe:
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
