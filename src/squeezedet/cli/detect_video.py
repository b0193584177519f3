"""What ``squeezedet detect`` needs for videos: a stop that leaves whole files behind."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from types import FrameType
from typing import Self, TypeVar

from squeezedet.interrupts import Interrupts

T = TypeVar("T")


class Stop(Interrupts):
    """Ctrl-C and SIGTERM end the items; a second one interrupts at once.

    >>> with Stop() as stop:                  # doctest: +SKIP
    ...     for frame in stop.before(frames):
    ...         work(frame)

    Args:
        active: without, signals do what they always do, and the items come to their own end.
    """

    def __init__(self, active: bool = True) -> None:
        super().__init__()
        self._active = active
        self._waiting = self._ended = False

    def __enter__(self) -> Self:
        if self._active:
            super().__enter__()
        return self

    def before(self, items: Iterable[T]) -> Generator[T, None, None]:
        """The items until a signal comes; one that is waited for is not waited for longer."""
        iterator = iter(items)
        while not self._over():
            try:
                self._waiting = True
                item = next(iterator)
            except StopIteration:
                break
            except KeyboardInterrupt:
                if not self.asked:
                    raise
                break
            finally:
                self._waiting = False
            yield item

    def end(self) -> None:
        """No further item, and no interrupt either."""
        self._ended = True

    def _over(self) -> bool:
        return self.asked or self._ended

    def _ask(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if self._waiting or again:
            self._waiting = False
            raise KeyboardInterrupt
