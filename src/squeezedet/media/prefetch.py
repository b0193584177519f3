"""Reading ahead, writing behind, the newest frame: a thread each, beside that of the network.

Pillow's decoders and encoders and the inference engines let other threads run meanwhile, so the
next picture is decoded and the last one written while the network is busy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from queue import SimpleQueue
from typing import Generic, ParamSpec, Self, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

DEPTH = 2
PATIENCE_S = 2.0
"""How long a loop that ends early waits for a source that is in the middle of an item."""


def prefetch(items: Iterable[T], depth: int = DEPTH) -> Generator[T, None, None]:
    """The same items in the same order, the next ones taken while the caller is at work.

    The source runs in one thread from the first item to the last, and is closed there. What it
    raises is raised here, after the items before it. When the loop ends early, the thread ends
    with the item that it is at; only one that waits for somebody for longer (a pipe that nobody
    fills) is left behind, so do not read a terminal or a pipe ahead.

    At most ``depth`` items are held that were not yet asked for.
    """
    with closing(merge([items], depth)) as merged:
        for _, item in merged:
            yield item


def merge(sources: Sequence[Iterable[T]], depth: int = DEPTH) -> Generator[tuple[int, T], None, None]:
    """The items of several sources as they come, each with the index of its source; see ``prefetch``.

    Each is taken from in a thread of its own. The first error of a source is raised here and ends all.
    """
    # Places rather than a bounded queue: an item is only begun when there is room for it.
    places = [threading.Semaphore(depth) for _ in sources]
    ready: SimpleQueue[tuple[int, T] | BaseException | None] = SimpleQueue()  # at its end, each source's error or None
    stopped = threading.Event()

    def run(index: int) -> None:
        error: BaseException | None = None
        try:
            with ExitStack() as stack:
                iterator = iter(sources[index])
                stack.callback(getattr(iterator, "close", lambda: None))
                while places[index].acquire() and not stopped.is_set():
                    ready.put((index, next(iterator)))
        except StopIteration:
            pass
        except BaseException as raised:  # whatever it is, it belongs to the loop
            error = raised
        ready.put(error)

    threads = [
        threading.Thread(target=run, args=(index,), name="read ahead", daemon=True) for index in range(len(sources))
    ]
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            item = ready.get()
            if not isinstance(item, tuple):
                if item is not None:
                    raise item
                running -= 1
                continue
            places[item[0]].release()
            yield item
    finally:
        stopped.set()
        end = time.monotonic() + PATIENCE_S
        for place, thread in zip(places, threads, strict=True):
            place.release()
            thread.join(max(end - time.monotonic(), 0))


class BackgroundWriter(Generic[P]):
    """Calls a function in one thread, one call after the other, and does not wait for it.

    >>> with BackgroundWriter(pictures.write) as write:  # doctest: +SKIP
    ...     for frame in frames:
    ...         write(frame, detector.detect(frame))

    The end of the block waits for all calls. What the function raises is raised by the next call,
    or by the end of the block; later calls are then dropped. When the block itself fails, the call
    that is under way is finished and those that wait are dropped. At most ``depth`` calls wait, and one more caller.
    """

    def __init__(self, function: Callable[P, object], depth: int = DEPTH) -> None:
        self._function = function
        self._places = threading.Semaphore(depth + 1)  # one is the call under way
        self._waiting: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._dropping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="write behind", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        self._places.acquire()
        self._raise()
        self._waiting.put(lambda: self._function(*args, **kwargs))

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._dropping.set()
        self._waiting.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        while (call := self._waiting.get()) is not None:
            try:
                if not self._dropping.is_set():
                    call()
            except BaseException as error:  # it belongs to who called
                self._error = error
                self._dropping.set()
            finally:
                self._places.release()


def latest(source: Generator[T, None, None], stall_s: float | None = None) -> Iterator[tuple[T, int]]:
    """The newest item of a source that a thread takes from as fast as it gives, and how many were dropped until then.

    What the source raises is raised after its last item. When the next item takes longer than ``stall_s`` (the first
    one twice as long, as the source is opened first), ``TimeoutError`` is raised, and the thread is left behind.
    """
    changed = threading.Condition()
    waiting: list[T] = []  # the newest item, if nobody took it
    dropped, ended, stopped = 0, False, False
    error: BaseException | None = None

    def take() -> None:
        nonlocal dropped, ended, error
        try:
            with closing(source):  # what is open is closed by its own thread
                for item in source:
                    with changed:
                        dropped += len(waiting)
                        waiting[:] = [item]
                        changed.notify()
                    if stopped:
                        break
        except BaseException as raised:  # whatever it is, it belongs to who takes
            error = raised
        finally:
            with changed:
                ended = True
                changed.notify()

    thread = threading.Thread(target=take, name="newest frame", daemon=True)
    thread.start()
    patience_s = None if stall_s is None else 2 * stall_s
    leave_s = PATIENCE_S
    try:
        while True:
            with changed:
                if not changed.wait_for(lambda: waiting or ended, patience_s):
                    leave_s = 0  # it hangs in the source
                    raise TimeoutError
                patience_s = stall_s
                if not waiting:
                    break
                found = waiting.pop(), dropped
            yield found
        if error is not None:
            raise error
    finally:
        stopped = True
        thread.join(leave_s)
