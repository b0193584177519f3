"""Peak memory of a candidate, in a fresh process that does nothing else."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from squeezedet.errors import SqueezeDetError
from squeezedet.latency.turns import Detect

FRAMES = 3
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process that opens one model and detects in three frames.

    Attributes:
        peak_bytes: the most it held: Python, libraries, engine, model, one frame at a time.
        before_bytes: the most it held before the model was opened: Python, NumPy, Pillow and a
            decoded frame.
    """

    peak_bytes: int
    before_bytes: int


def peak_memory(reopen: Callable[[], Detect], picture: Path) -> Memory:
    """Open a candidate in a process of its own, detect, and ask what it held.

    Raises:
        SqueezeDetError: the process was ended from outside, as happens when memory is short.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, reopen, picture).result()
        except BrokenProcessPool as error:
            raise SqueezeDetError(
                "the process that measures memory was ended from outside; was memory short?"
            ) from error


def _measure(reopen: Callable[[], Detect], picture: Path) -> Memory:
    from squeezedet.media.images import read_image

    frame = read_image(picture)
    before = high_water_bytes()
    detect = reopen()
    for _ in range(FRAMES):
        detect(frame)
    return Memory(high_water_bytes(), before)


def high_water_bytes(status: Path = STATUS) -> int:
    """The most resident memory that this process has held.

    Linux says it in ``VmHWM``. ``getrusage``, which is asked elsewhere, would on Linux also count
    what the parent held when it started this process.
    """
    if status.is_file():
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
