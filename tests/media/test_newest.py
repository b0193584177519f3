from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from squeezedet.media.video import LatestFrame


def test_a_slow_taker_gets_the_newest() -> None:
    taken, written = threading.Event(), threading.Event()

    def source() -> Generator[int, None, None]:
        yield 0
        taken.wait(5)
        yield from range(1, 8)
        written.set()

    got = []
    for item, dropped in LatestFrame(source()):
        got.append((item, dropped))
        taken.set()
        written.wait(5)
    assert got[0] == (0, 0)
    assert got[-1] == (7, 6)
    assert [item for item, _ in got] in ([0, 7], [0, 1, 7])


def test_a_slow_source_loses_nothing() -> None:
    room = threading.Semaphore(1)

    def source() -> Generator[int, None, None]:
        for number in range(20):
            room.acquire()
            yield number

    got = []
    for item, dropped in LatestFrame(source()):
        got.append(item)
        assert dropped == 0
        room.release()
    assert got == list(range(20))


def test_an_error_comes_after_the_last_item() -> None:
    def source() -> Generator[int, None, None]:
        yield 1
        raise ValueError("broken")

    items = iter(LatestFrame(source()))
    assert next(items) == (1, 0)
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_leaving_early_closes_the_source_in_its_own_thread() -> None:
    closed: list[str] = []

    def source() -> Generator[int, None, None]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.append(threading.current_thread().name)

    for _ in LatestFrame(source()):
        break
    for thread in threading.enumerate():
        if thread.name == "newest frame":
            thread.join(5)
    assert closed == ["newest frame"]
