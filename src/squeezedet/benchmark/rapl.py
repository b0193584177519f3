"""The energy counters of x86 processors (RAPL), through Linux's powercap files.

A tree of zones: a package (socket) holds subzones for its cores, graphics and memory. Packages alone are added up.
Not counted are the subzones ``core`` and ``uncore``, which are parts of theirs; ``psys``, the platform, which holds the
packages again; ``intel-rapl-mmio``, a second way to the same counters; and ``dram``, which some processors count in the
package and some beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from squeezedet.benchmark.meter import Meter
from squeezedet.errors import SqueezeDetError

ROOT = Path("/sys/class/powercap")
ZONE = re.compile(r"intel-rapl:\d+")
"""A zone of the top; AMD's processors have the same name."""


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
    named = [(_text(folder / "name"), folder) for folder in folders]
    zones = [
        Zone(name, folder, _number(folder / "max_energy_range_uj"))
        for name, folder in named
        if name.startswith("package")
    ]
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
        look_s: seconds between two looks. A counter of 65 kJ, the smallest, turns over in four minutes at 280 W.

    Raises:
        SqueezeDetError: there are no counters, or they cannot be read, with the reason.
    """

    name = "rapl"
    how = "difference of the processor's energy counters over the whole block"

    def __init__(self, root: Path = ROOT, look_s: float = Meter.look_s) -> None:
        self._zones = packages(root)
        self.look_s = look_s
        self.counter()  # whether they can be read is known before the work
        names = " + ".join(zone.name for zone in self._zones)
        self.source = f"RAPL, {names}: cores, caches and graphics on it, no memory"

    def counter(self) -> Callable[[], float]:
        """A function that gives the joules of all packages since now; counters may turn over between two calls."""
        last_uj = [zone.energy_uj() for zone in self._zones]
        sum_uj = 0

        def passed_j() -> float:
            nonlocal sum_uj
            for i, zone in enumerate(self._zones):
                now_uj = zone.energy_uj()
                sum_uj += passed_uj(last_uj[i], now_uj, zone.range_uj)
                last_uj[i] = now_uj
            return sum_uj / 1e6

        return passed_j
