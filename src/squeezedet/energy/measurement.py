"""A measured block of code, and the thread that looks at a sensor while the block runs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from squeezedet.energy.reading import Reading
from squeezedet.errors import UsageError


class Measurement:
    """What ``with meter.measure() as measurement`` gives; it has a reading when the block ended."""

    def __init__(self) -> None:
        self._read: Callable[[int], Reading] | None = None

    def finish(self, read: Callable[[int], Reading]) -> None:
        """Called by the meter at the end of the block: frames -> reading."""
        self._read = read

    def reading(self, frames: int) -> Reading:
        """The cost of the block.

        Args:
            frames: how many frames the block processed.

        Raises:
            UsageError: no frame.
            SqueezeDetError: the meter has no figure for this block, with the reason.
            RuntimeError: the block has not ended, or ended with an error.
        """
        if self._read is None:
            raise RuntimeError("a measurement has a reading after its block has ended well")
        if frames < 1:
            raise UsageError(f"frames: there must be 1 at least, not {frames}")
        return self._read(frames)


def power_at_rest_w(
    measure: Callable[[], AbstractContextManager[Measurement]], duration_s: float
) -> float | None:
    """Mean power over a block in which nothing is done here for ``duration_s``."""
    with measure() as measurement:
        time.sleep(duration_s)
    return measurement.reading(frames=1).power_w


class Sampler:
    """Calls a function at even times in a thread: at the start of the block, then every interval.

    Times are multiples of the interval from the start, so that delays do not add up; those that
    a busy machine missed are left out. What the function raises ends the thread, and
    ``check`` raises it again.

    Args:
        interval_s: seconds between two calls.
        take: gets the seconds since the start.
    """

    def __init__(self, interval_s: float, take: Callable[[float], None]) -> None:
        self._interval_s = interval_s
        self._take = take
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="energy sampler", daemon=True)

    def __enter__(self) -> Self:
        self._start_s = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
