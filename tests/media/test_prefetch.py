from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.media.prefetch import BackgroundWriter, latest, merge, prefetch

WAIT_S = 5.0


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


class Counted:
    """A source that counts what was begun, and tells when a number is reached."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.begun = 0
        self.closed_in: str | None = None
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[int]:
        try:
            for number in range(self.total):
                with self._changed:
                    self.begun += 1
                    self._changed.notify_all()
                yield number
        finally:
            self.closed_in = threading.current_thread().name

    def wait_for(self, begun: int, timeout_s: float = WAIT_S) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.begun >= begun, timeout_s)


@given(st.lists(st.integers()), st.integers(1, 5))
def test_gives_the_same_items_in_the_same_order(items: list[int], depth: int) -> None:
    assert list(prefetch(items, depth)) == items
    assert not threads("read ahead")


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_reads_while_the_caller_is_at_work_and_no_further_than_asked(depth: int) -> None:
    source = Counted(20)
    ahead = prefetch(source, depth)
    assert next(ahead) == 0
    assert source.wait_for(1 + depth), "nothing was read meanwhile"
    assert not source.wait_for(2 + depth, timeout_s=0.1), "more is held than was allowed"
    assert list(ahead) == list(range(1, 20))


def test_the_source_runs_and_is_closed_in_its_own_thread() -> None:
    source = Counted(3)
    assert list(prefetch(source)) == [0, 1, 2]
    assert source.closed_in == "read ahead"


def test_a_loop_that_ends_early_leaves_no_thread_and_closes_the_source() -> None:
    source = Counted(1000)
    for item in (ahead := prefetch(source)):
        if item == 3:
            break
    ahead.close()
    assert not threads("read ahead")
    assert source.closed_in == "read ahead"
    assert source.begun <= 4 + 2


def test_nothing_is_read_before_the_first_item_is_asked_for() -> None:
    source = Counted(5)
    ahead = prefetch(source)
    assert source.begun == 0
    ahead.close()
    assert source.begun == 0


def test_an_error_of_the_source_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("the camera is gone")

    seen = []
    with pytest.raises(OSError, match="camera is gone"):
        for item in prefetch(failing(), 5):
            seen.append(item)
    assert seen == [1, 2]
    assert not threads("read ahead")


@given(st.lists(st.integers()), st.integers(1, 4))
def test_every_call_is_made_once_and_in_order(items: list[int], depth: int) -> None:
    written: list[tuple[int, str]] = []

    def sink(item: int, *, kind: str) -> None:
        written.append((item, kind))

    with BackgroundWriter(sink, depth) as write:
        for item in items:
            write(item, kind="x")
    assert written == [(item, "x") for item in items]
    assert not threads("write behind")


def test_the_caller_does_not_wait_until_too_many_calls_wait() -> None:
    gate, returned = threading.Event(), []
    with BackgroundWriter(lambda _: gate.wait(WAIT_S), depth=2) as write:

        def call() -> None:
            for number in range(4):
                write(number)
                returned.append(number)

        caller = threading.Thread(target=call)
        caller.start()
        caller.join(0.2)
        assert returned == [0, 1, 2]  # one under way, two wait
        gate.set()
        caller.join(WAIT_S)
    assert returned == [0, 1, 2, 3]


def test_what_the_function_raises_comes_with_the_next_call_and_the_rest_is_dropped() -> None:
    written = []

    def sink(item: int) -> None:
        if item == 1:
            raise OSError("the disk is full")
        written.append(item)

    with pytest.raises(OSError, match="disk is full"), BackgroundWriter(sink, depth=1) as write:
        for item in range(100):
            write(item)
    assert written == [0]
    assert not threads("write behind")


def test_what_the_last_call_raises_comes_with_the_end_of_the_block() -> None:
    done = []

    def sink() -> None:
        done.append(1)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"), BackgroundWriter(sink) as write:
        write()
    assert done == [1]


def test_a_block_that_fails_drops_what_waits_and_keeps_its_own_error() -> None:
    gate, started, written = threading.Event(), threading.Event(), []

    def sink(item: int) -> None:
        started.set()
        gate.wait(WAIT_S)
        written.append(item)

    def block() -> None:
        with BackgroundWriter(sink, depth=3) as write:
            for item in range(3):
                write(item)
            started.wait(WAIT_S)
            threading.Timer(0.1, gate.set).start()
            raise KeyError("the loop")

    with pytest.raises(KeyError, match="the loop"):
        block()
    assert written == [0]
    assert not threads("write behind")


def test_a_slow_taker_gets_the_newest() -> None:
    taken, written = threading.Event(), threading.Event()

    def source() -> Generator[int, None, None]:
        yield 0
        taken.wait(5)
        yield from range(1, 8)
        written.set()

    got = []
    for item, dropped in latest(source()):
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
    for item, dropped in latest(source()):
        got.append(item)
        assert dropped == 0
        room.release()
    assert got == list(range(20))


def test_an_error_comes_after_the_last_item() -> None:
    def source() -> Generator[int, None, None]:
        yield 1
        raise ValueError("broken")

    items = iter(latest(source()))
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

    for _ in latest(source()):
        break
    for thread in threading.enumerate():
        if thread.name == "newest frame":
            thread.join(5)
    assert closed == ["newest frame"]


# ------------------------------------------------------------------ several sources


def test_several_sources_come_each_in_its_order() -> None:
    got = list(merge([range(5), range(10, 13), ()]))
    assert sorted({index for index, _ in got}) == [0, 1]
    assert [item for index, item in got if index == 0] == [0, 1, 2, 3, 4]
    assert [item for index, item in got if index == 1] == [10, 11, 12]


def test_a_source_that_waits_holds_up_no_other() -> None:
    go_on = threading.Event()

    def slow() -> Iterator[str]:
        go_on.wait(10)
        yield "late"

    merged = merge([slow(), iter(["a", "b"])])
    assert [next(merged), next(merged)] == [(1, "a"), (1, "b")]
    go_on.set()
    assert list(merged) == [(0, "late")]


def test_a_stall_is_a_timeout() -> None:
    release = threading.Event()

    def source() -> Generator[int, None, None]:
        yield 1
        release.wait(10)

    frames = iter(latest(source(), stall_s=0.2))
    assert next(frames) == (1, 0)
    with pytest.raises(TimeoutError):
        next(frames)
    release.set()
