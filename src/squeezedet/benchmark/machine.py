"""The machine that timings belong to, and what else it did meanwhile."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Self

from squeezedet.benchmark.turns import Detect
from squeezedet.errors import SqueezeDetError

FLAGS = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve"),
)
"""Instructions that matter to networks; the first two lines of x86, the last of ARM."""
PACKAGES = ("numpy", "pillow", "onnxruntime", "openvino", "ncnn", "torch")
MODEL_LINES = ("model name", "Hardware", "Model", "cpu model")
"""Of /proc/cpuinfo, on x86, ARM, Raspberry Pi, MIPS."""
BUSY_LOAD = 0.3
"""A load average above so much of the cores, before the run begins, is worth a warning."""
BUSY_SHARE = 0.05
"""And so is more than this share of the machine's time that others took during the run."""
ROOT = Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a machine is; None where the system does not say.

    Attributes:
        cores: that this process may use.
        flags: of ``FLAGS``, those that the processor has.
        governor: of the first core's clock.
        versions: installed package -> version.
        load_1m: mean number of busy threads over the last minute.
    """

    cpu: str
    cores: int
    flags: tuple[str, ...]
    memory_bytes: int | None
    governor: str | None
    system: str
    python: str
    versions: dict[str, str]
    load_1m: float | None

    @property
    def warnings(self) -> list[str]:
        """Why timings of this machine may mislead, one sentence each."""
        found = []
        if self.load_1m is not None and self.load_1m > BUSY_LOAD * self.cores:
            load = f"a load of {self.load_1m:.1f} on {self.cores} cores before the run"
            found.append(f"the machine is busy: {load}; end what else runs, or trust only the ratios")
        if self.governor is not None and self.governor not in ("performance", "schedutil"):
            found.append(f"the clock's governor is {self.governor!r}: short runs may be timed at a low clock")
        return found


def describe(root: Path = ROOT) -> Machine:
    """This machine, now; ``root`` is where ``proc`` and ``sys`` are."""
    info = _text(root / "proc/cpuinfo")
    names = filter(None, (_field(info, name) for name in MODEL_LINES))
    has = (_field(info, "flags|Features") or "").split()
    memory = _field(_text(root / "proc/meminfo"), "MemTotal")
    return Machine(
        cpu=next(names, None) or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        flags=tuple(flag for flag in FLAGS if flag in has),
        memory_bytes=_bytes(memory) if memory else None,
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        system=platform.platform(),
        python=platform.python_version(),
        versions=_versions(),
        load_1m=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(text: str, names: str) -> str | None:
    """What stands behind ``NAME:`` in a file of /proc."""
    found = re.search(rf"^(?:{names})\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else None


def _bytes(kilobytes: str) -> int:
    """``16336292 kB`` as bytes."""
    return int(kilobytes.removesuffix("kB")) * 1024


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class Watch:
    """Looks at who used the processor while a block ran.

    Attributes:
        others: share of the usable cores' time that other processes, the system or another guest of the host took; None
            where the system does not say.
    """

    others: float | None = None

    def __init__(self, root: Path = ROOT) -> None:
        self._stat = root / "proc/stat"

    def __enter__(self) -> Self:
        self._before = self._look()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._look()
        if self._before is None or after is None or after[1] <= self._before[1]:
            return
        busy, total, mine = (b - a for a, b in zip(self._before, after, strict=True))
        self.others = min(max((busy - mine) / total, 0.0), 1.0)

    @property
    def warnings(self) -> list[str]:
        """One sentence if others took more than a twentieth."""
        if self.others is None or self.others <= BUSY_SHARE:
            return []
        return [f"other processes took {self.others:.0%} of the processor during the run: trust only the ratios"]

    def _look(self) -> tuple[float, float, float] | None:
        """Busy and all time of all cores and time of this process, in ticks."""
        first = _text(self._stat).split("\n", 1)[0].split()
        if not first or first[0] != "cpu" or len(first) < 9:
            return None
        ticks = [float(text) for text in first[1:9]]  # what follows, guests, is in user already
        idle = ticks[3] + ticks[4]
        times = os.times()
        own = (times.user + times.system) * os.sysconf("SC_CLK_TCK")
        return sum(ticks) - idle, sum(ticks), own


# ------------------------------------------------------------ peak memory

FRAMES = 3
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """The most that a process held that opens a model and detects in three frames; and before it opened the model."""

    peak_bytes: int
    before_bytes: int


def peak_memory(reopen: Callable[[], Detect], picture: Path) -> PeakMemory:
    """Open a candidate in a process of its own, detect, and ask what it held.

    Raises:
        SqueezeDetError: the process was ended from outside, as happens when memory is short.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, reopen, picture).result()
        except BrokenProcessPool as error:
            said = "the process that measures memory was ended from outside; was memory short?"
            raise SqueezeDetError(said) from error


def _measure(reopen: Callable[[], Detect], picture: Path) -> PeakMemory:
    from squeezedet.media.images import read_image

    frame = read_image(picture)
    before = high_water_bytes()
    detect = reopen()
    for _ in range(FRAMES):
        detect(frame)
    return PeakMemory(high_water_bytes(), before)


def high_water_bytes(status: Path = STATUS) -> int:
    """The most resident memory that this process has held.

    On Linux ``getrusage``, which is asked elsewhere, also counts what the parent held when it started this process.
    """
    if peak := _field(_text(status), "VmHWM"):
        return _bytes(peak)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
