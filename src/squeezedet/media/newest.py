"""The newest item of a source that does not wait for who takes from it."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE_S = 1.0
"""How long the end waits for a source that is in the middle of an item."""


class Newest(Generic[T]):
    """Takes from a source as fast as it gives, in a thread, and keeps only the newest item.

    >>> for item, dropped in Newest(camera):  # doctest: +SKIP
    ...     work(item)

    What the source raises is raised after its last item.

    Args:
        source: its items are taken in another thread.
    """

    def __init__(self, source: Generator[T, None, None]) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._waiting: list[T] = []  # the newest item, if nobody took it
        self._dropped = 0
        self._ended = self._stopped = False
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[tuple[T, int]]:
        """Each item, and how many were dropped until then."""
        thread = threading.Thread(target=self._take, name="newest frame", daemon=True)
        thread.start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._ended)
                    if not self._waiting:
                        break
                    item, dropped = self._waiting.pop(), self._dropped
                yield item, dropped
            if self._error is not None:
                raise self._error
        finally:
            self._stopped = True
            thread.join(PATIENCE_S)

    def _take(self) -> None:
        try:
            with closing(self._source) as source:  # what is open is closed by its own thread
                for item in source:
                    with self._changed:
                        self._dropped += len(self._waiting)
                        self._waiting[:] = [item]
                        self._changed.notify()
                    if self._stopped:
                        break
        except BaseException as error:  # whatever it is, it belongs to who takes
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()
