"""Joules per frame: a reading with its source, the meters, and which one is taken.

A meter must measure the machine that computes: joules of a card say nothing of a network on the processor. So ``auto``
takes NVML for networks on a card, RAPL for those on the processor, and no meter where that one does not work.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from squeezedet.benchmark import power_log
from squeezedet.benchmark.power_log import HIGHEST_POWER_W, INTERVAL_S, WORKING_W, working_period
from squeezedet.errors import DataError, MissingExtraError, SqueezeDetError, UsageError


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
    """What ``with meter.measure() as measurement`` gives; ``read`` is set when the block has ended."""

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
        _check_frames(frames)
        return self.read(frames)


def _check_frames(frames: int) -> None:
    if frames < 1:
        raise UsageError(f"frames: there must be 1 at least, not {frames}")


class Sampler:
    """Calls a function in a thread at the start of the block, then every interval, with the seconds since the start.

    Times are multiples of the interval, so that delays do not add up; those that a busy machine missed are left out.
    What the function raises ends the thread, and ``check`` raises it again.
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
    """One source of energy.

    Attributes:
        name: one of ``METERS``.
        source: what it measures, in a few words.
    """

    name: str
    source: str

    def measure(self) -> AbstractContextManager[Measurement]:
        """Watch a block of code; its ``reading(frames=n)`` is what it cost, idle included."""
        raise NotImplementedError


class NoMeter(Meter):
    """Counts processor time, which needs no sensor and nobody's permission."""

    name = "none"
    source = "no energy meter"
    how = "user and system time of this process, its threads and ended children"

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        measurement = Measurement()
        start_s, before = time.perf_counter(), os.times()
        yield measurement
        duration_s, after = time.perf_counter() - start_s, os.times()
        cpu_s = sum(after[:4]) - sum(before[:4])  # user and system, its own and its children's
        measurement.read = lambda frames: EnergyReading(
            source=self.source, how=self.how, frames=frames, duration_s=duration_s, energy_j=None, cpu_s=cpu_s
        )


# ------------------------------------------------------------ RAPL: the energy counters of x86 processors
#
# Linux's powercap files are a tree of zones: a package (socket) holds subzones for its cores, graphics and memory.
# Packages alone are added up. Not counted are the subzones ``core`` and ``uncore``, which are parts of theirs;
# ``psys``, the platform, which holds the packages again; ``intel-rapl-mmio``, a second way to the same counters; and
# ``dram``, which some processors count in the package and some beside it.

POWERCAP = Path("/sys/class/powercap")
ZONE = re.compile(r"intel-rapl:\d+")
"""A zone of the top; AMD's processors have the same name."""
LOOK_S = 10.0
"""Between two looks at a counter: one of 65 kJ, the smallest, starts again in four minutes at 280 W."""


class Zone(NamedTuple):
    """One package: its name (package-0), the folder of its files, and where its counter starts again at 0."""

    name: str
    folder: Path
    range_uj: int

    def energy_uj(self) -> int:
        """The counter now."""
        return _number(self.folder / "energy_uj")


def passed_uj(before_uj: int, after_uj: int, range_uj: int) -> int:
    """What a counter that starts again at ``range_uj`` counted, once around at most."""
    return after_uj - before_uj if after_uj >= before_uj else after_uj - before_uj + range_uj


def packages(root: Path = POWERCAP) -> list[Zone]:
    """The packages, by number.

    Raises:
        SqueezeDetError: there are none, or their files cannot be read.
    """
    try:
        folders = sorted(path for path in root.iterdir() if ZONE.fullmatch(path.name))
    except OSError as error:
        raise SqueezeDetError(
            f"{root}: no energy counters ({error.strerror}); RAPL needs Linux on an x86 "
            "processor, and virtual machines rarely have it"
        ) from error
    named = [(_text(folder / "name"), folder) for folder in folders]
    zones = [Zone(name, f, _number(f / "max_energy_range_uj")) for name, f in named if name.startswith("package")]
    if not zones:
        raise SqueezeDetError(f"{root}: no energy counter of a processor package is there")
    return zones


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except PermissionError as error:
        raise SqueezeDetError(
            f"{path}: permission denied; only root reads it unless it is allowed: sudo chmod a+r {path}"
        ) from error
    except OSError as error:
        raise SqueezeDetError(f"{path}: cannot be read ({error.strerror})") from error


def _number(path: Path) -> int:
    text = _text(path)
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise SqueezeDetError(f"{path}: {text[:40]!r} is not a number of microjoules")
    return int(text)


class RaplMeter(Meter):
    """The energy of the processor's packages while a block runs; every program on them counts.

    Args:
        root: the folder of the zones.
        look_s: seconds between two looks, as a counter may start again at 0.

    Raises:
        SqueezeDetError: there are no counters, or they cannot be read, with the reason.
    """

    name = "rapl"
    how = "difference of the processor's energy counters over the whole block"

    def __init__(self, root: Path = POWERCAP, look_s: float = LOOK_S) -> None:
        self._zones, self._look_s = packages(root), look_s
        self._energies_uj()  # whether they can be read is known before the work
        names = " + ".join(zone.name for zone in self._zones)
        self.source = f"RAPL, {names}: cores, caches and graphics on it, no memory"

    def _energies_uj(self) -> list[int]:
        return [zone.energy_uj() for zone in self._zones]

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        measurement = Measurement()
        sum_uj, last_uj, start_s = 0, self._energies_uj(), time.perf_counter()

        def look(_: float = 0.0) -> None:
            nonlocal sum_uj, last_uj
            now_uj = self._energies_uj()
            for zone, before, now in zip(self._zones, last_uj, now_uj, strict=True):
                sum_uj += passed_uj(before, now, zone.range_uj)
            last_uj = now_uj

        with Sampler(self._look_s, look) as sampler:
            yield measurement
        look()
        duration_s = time.perf_counter() - start_s

        def read(frames: int) -> EnergyReading:
            sampler.check()
            if not sum_uj:
                raise SqueezeDetError(f"{self.source}: it did not move in {duration_s:.3f} s; measure longer")
            return EnergyReading(
                source=self.source, how=self.how, frames=frames, duration_s=duration_s, energy_j=sum_uj / 1e6
            )

        measurement.read = read


# ------------------------------------------------------------ NVML: the power of an NVIDIA card
#
# Sampled every 0.1 s, by the supplement's method; ``nvidia-smi``, which the supplement used, shows the same figure.
# Cards before Ampere (and A100) give the power of the moment, later ones its mean over the last second: measure ten
# seconds or more.

LEAST_SHARE = 0.5
"""Of the block that must be work, or the network ran elsewhere."""


class Card:
    """One card, by its number in ``nvidia-smi``; None for the only one.

    NVML stays open until the process ends: it is one library for all who use it.

    Raises:
        MissingExtraError: nvidia-ml-py is not installed.
        UsageError: there are several cards and none is named, or not this one.
        SqueezeDetError: there is no driver or no card, with NVML's reason.
    """

    def __init__(self, index: int | None = None) -> None:
        try:
            self._nvml: Any = import_module("pynvml")
        except ModuleNotFoundError as error:
            raise MissingExtraError("the NVML power meter", "energy") from error
        self._ask("no NVIDIA driver answers", self._nvml.nvmlInit)
        count = self._ask("the cards cannot be counted", self._nvml.nvmlDeviceGetCount)
        if count == 0:
            raise SqueezeDetError("NVML: the NVIDIA driver finds no card")
        if (index is None and count > 1) or (index is not None and not 0 <= index < count):
            asked = "none is named" if index is None else f"there is no card {index}"
            raise UsageError(f"NVML: of {count} cards (0 to {count - 1}) {asked}; say which one")
        index = index or 0
        self._handle = self._ask(f"card {index} cannot be opened", self._nvml.nvmlDeviceGetHandleByIndex, index)
        name = self._ask("the card has no name", self._nvml.nvmlDeviceGetName, self._handle)
        self.name = f"card {index}, {name}"

    def power_w(self) -> float:
        """Power now, of the whole card."""
        function = self._nvml.nvmlDeviceGetPowerUsage
        return float(self._ask(f"{self.name} gives no power", function, self._handle)) / 1e3

    def _ask(self, else_say: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            raise SqueezeDetError(f"NVML: {else_say} ({error})") from error


class NvmlMeter(Meter):
    """Watches the power of a card while a block runs; everything on the card counts.

    Joules are the mean power of the middle third of the working period times the time of the whole block, as frames per
    second are the block's. A large card idles above the 20 W that are work: then the whole block is the working period.

    Raises:
        SqueezeDetError: there is no card that says its power, with the reason.
    """

    name = "nvml"

    def __init__(self, card: int | None = None) -> None:
        self._card = Card(card)
        self._card.power_w()
        self.source = f"NVML, {self._card.name}: power sampled every {INTERVAL_S:g} s"

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        samples: list[tuple[float, float]] = []
        measurement = Measurement()
        with Sampler(INTERVAL_S, lambda time_s: samples.append((time_s, self._card.power_w()))) as sampler:
            yield measurement

        def read(frames: int) -> EnergyReading:
            sampler.check()
            duration_s = sampler.duration_s
            try:
                period = working_period(*zip(*samples, strict=True))
            except SqueezeDetError as error:
                raise SqueezeDetError(f"{self.source}: {error}") from error
            if period.duration_s < LEAST_SHARE * duration_s:
                raise SqueezeDetError(
                    f"{self.source}: at least {WORKING_W:g} W for only "
                    f"{period.duration_s:.1f} s of {duration_s:.1f} s; does the network run on it?"
                )
            return EnergyReading(
                source=self.source,
                how=period.how,
                frames=frames,
                duration_s=duration_s,
                energy_j=period.power_w * duration_s,
            )

        measurement.read = read


# ------------------------------------------------------------ a recorded log


def read_log(path: Path, frames: int, working_w: float | None = None) -> EnergyReading:
    """The supplement's method on a log that was recorded while so many frames were processed.

    Frames per second are the frames over the time of the working period.

    Args:
        path: of the log, see ``power_log.read``.
        frames: that were processed in the working period.
        working_w: the least power that is work; None for the paper's 20 W.

    Raises:
        DataError: the file is no log, or has no working period.
        UsageError: no frame, or the threshold is not a positive number.
    """
    if working_w is None:
        working_w = WORKING_W
    if not 0 < working_w <= HIGHEST_POWER_W:
        raise UsageError(f"the threshold of work is a number of watts, not {working_w:g}")
    _check_frames(frames)
    try:
        period = working_period(*power_log.read(path), working_w=working_w)
    except DataError:
        raise
    except SqueezeDetError as error:
        raise DataError(f"{path}: {error}") from error
    return EnergyReading(
        source=f"power log {path}",
        how=period.how,
        frames=frames,
        duration_s=period.duration_s,
        energy_j=period.power_w * period.duration_s,
        idle_w=period.idle_w,
    )


# ------------------------------------------------------------ which meter

METERS: dict[str, type[Meter]] = {"nvml": NvmlMeter, "rapl": RaplMeter, "none": NoMeter}
FOR_DEVICE = {"cuda": ("nvml", "a card"), "cpu": ("rapl", "the processor")}
Device = Literal["cpu", "cuda"]


class ChosenMeter(NamedTuple):
    """A meter, and one sentence that says why this one."""

    meter: Meter
    why: str


def choose(name: str = "auto", *, device: Device = "cpu", card: int | None = None) -> ChosenMeter:
    """The meter of a name, or the one that measures what computes.

    Args:
        name: one of ``METERS``, or "auto".
        device: where the network runs; matters to "auto".
        card: which NVIDIA card; None for the only one.

    Raises:
        UsageError: no such meter.
        SqueezeDetError: a meter that was asked for by name does not work, with the reason.
    """
    if name in METERS:
        return ChosenMeter(_open(name, card), f"{name}, as asked for")
    if name != "auto":
        close = get_close_matches(name, METERS, n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise UsageError(f"no meter {name!r}{hint} There are: auto, {', '.join(METERS)}")
    wanted, place = FOR_DEVICE[device]
    try:
        return ChosenMeter(_open(wanted, card), f"{wanted}, as the network runs on {place}")
    except SqueezeDetError as error:
        why = f"none, as the network runs on {place} and {wanted} does not work here: {error}"
        return ChosenMeter(NoMeter(), why)


def _open(name: str, card: int | None) -> Meter:
    return NvmlMeter(card) if name == "nvml" else METERS[name]()


def probe() -> dict[str, tuple[bool, str]]:
    """Meter -> whether it works on this machine, and what it measures, or why it does not."""
    found = {}
    for name, meter in METERS.items():
        try:
            found[name] = True, meter().source
        except SqueezeDetError as error:
            found[name] = False, str(error)
    return found
