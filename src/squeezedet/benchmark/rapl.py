"""The energy counters of x86 processors (RAPL), through Linux's powercap files.

A tree of zones: a package (socket) holds subzones for its cores, graphics and memory. Packages
alone are added up. Not counted are the subzones ``core`` and ``uncore``, which are parts of
theirs; ``psys``, the platform, which holds the packages again; ``intel-rapl-mmio``, a second way
to the same counters; and ``dram``, which some processors count in the package and some beside it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from squeezedet.benchmark.reading import EnergyReading, Measurement, Sampler, power_at_rest_w
from squeezedet.errors import SqueezeDetError

ROOT = Path("/sys/class/powercap")
ZONE = re.compile(r"intel-rapl:\d+")
"""A zone of the top; AMD's processors have the same name."""
LOOK_S = 10.0
"""A counter of 65 kJ, the smallest, turns over in four minutes at 280 W: look more often."""


@dataclass(frozen=True, slots=True)
class Zone:
    """One package.

    Attributes:
        name: as the kernel says: package-0.
        folder: its files.
        range_uj: where its counter starts again at 0.
    """

    name: str
    folder: Path
    range_uj: int

    def energy_uj(self) -> int:
        """The counter now.

        Raises:
            SqueezeDetError: it cannot be read.
        """
        return _number(self.folder / "energy_uj")


def passed_uj(before_uj: int, after_uj: int, range_uj: int) -> int:
    """What a counter that starts again at ``range_uj`` counted, once around at most."""
    return after_uj - before_uj if after_uj >= before_uj else after_uj - before_uj + range_uj


def packages(root: Path = ROOT) -> list[Zone]:
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
    zones = []
    for folder in folders:
        name = _text(folder / "name")
        if name.startswith("package"):
            zones.append(Zone(name, folder, _number(folder / "max_energy_range_uj")))
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


class _Count:
    """The sum of all packages from its making on; counters may turn over between two looks."""

    def __init__(self, zones: list[Zone]) -> None:
        self._zones = zones
        self._last_uj = [zone.energy_uj() for zone in zones]
        self.sum_uj = 0

    def look(self) -> None:
        """Add what has been counted since the last look."""
        for i, zone in enumerate(self._zones):
            now_uj = zone.energy_uj()
            self.sum_uj += passed_uj(self._last_uj[i], now_uj, zone.range_uj)
            self._last_uj[i] = now_uj


class RaplMeter:
    """The energy of the processor's packages while a block runs; every program on them counts.

    Args:
        root: the folder of the zones.
        look_s: seconds between two looks at the counters.

    Raises:
        SqueezeDetError: there are no counters, or they cannot be read, with the reason.
    """

    name = "rapl"

    def __init__(self, root: Path = ROOT, look_s: float = LOOK_S) -> None:
        self._zones = packages(root)
        self._look_s = look_s
        for zone in self._zones:
            zone.energy_uj()
        names = " + ".join(zone.name for zone in self._zones)
        self.source = f"RAPL, {names}: cores, caches and graphics on it, no memory"

    def idle_power_w(self, duration_s: float) -> float | None:
        """Mean power while nothing is done here for ``duration_s``."""
        return power_at_rest_w(self.measure, duration_s)

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Read the counters before and after the block, and now and then in between."""
        measurement = Measurement()
        count, start_s = _Count(self._zones), time.perf_counter()
        with Sampler(self._look_s, lambda _: count.look()) as sampler:
            yield measurement
        count.look()
        energy_j, duration_s = count.sum_uj / 1e6, time.perf_counter() - start_s

        def read(frames: int) -> EnergyReading:
            sampler.check()
            if energy_j <= 0:
                raise SqueezeDetError(f"{self.source}: the counters did not move in {duration_s:.3f} s; measure longer")
            return EnergyReading(
                source=self.source,
                how="difference of the processor's energy counters over the whole block",
                frames=frames,
                duration_s=duration_s,
                energy_j=energy_j,
            )

        measurement.finish(read)
