"""The network in several processes, each with its share of the cores: as many images at once.

One process goes on to listen, so every limit, token and figure holds over all of them. An image whose worker dies
goes to another; the dead one is replaced, also when it is idle.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from squeezedet.errors import ModelError, SqueezeDetError

if TYPE_CHECKING:
    from prometheus_client import Counter

    from squeezedet.detections import Detections
    from squeezedet.runtime.detector import Detector
    from squeezedet.serving.decode import Prepared
    from squeezedet.serving.problems import Metrics

ATTEMPTS = 3
"""How many workers may die of an image before it is given up."""
START_S = 120.0
"""Longest time to load the model."""
TICK_S, HEARTBEAT_TICKS = 0.5, 10
"""How often an idle worker is looked at, and every how many times it is asked whether it lives."""
AGAIN_S = 1.0
"""Pause before the next try where a worker cannot be started."""
LOG = logging.getLogger("uvicorn.error")


def share_of_cores(count: int) -> int:
    """How many threads each of so many processes should compute with."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // count)


def detect(detector: Detector, image: Prepared, score: float | None) -> Detections:
    """What the newest model of a detector finds; a ModelError if it fails."""
    size = image.width, image.height
    return detector.newest().detect_fitted(image.pixels, size, image.timing_ms, score)


class _Task(NamedTuple):
    image: Prepared
    score: float | None
    answer: Future[Detections]
    deaths: int = 0


class Workers:
    """``count`` processes that each run the detector, one image after the other.

    Args:
        detector: one that can be pickled: each process opens its file anew.
        stuck_s: a worker that needs longer for an image is ended.
    """

    def __init__(self, detector: Detector, count: int, stuck_s: float) -> None:
        detector.__reduce__()  # a TypeError now, and not in a thread
        self.count = count
        self._context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
        self._detector, self._stuck_s = detector, stuck_s
        self._tasks: SimpleQueue[_Task] = SimpleQueue()
        self._live: set[BaseProcess] = set()
        self._ready = threading.Semaphore(0)
        self._closing = threading.Event()

    @property
    def live(self) -> int:
        """How many can be given an image, now or when theirs is done."""
        return len(self._live)

    @contextmanager
    def running(self, metrics: Metrics) -> Iterator[None]:
        """Every process, ready, as long as the block runs; a SqueezeDetError if they do not start."""
        metrics.workers.set_function(lambda: self.live)
        owners = [threading.Thread(target=self._own, args=(str(n), metrics), daemon=True) for n in range(self.count)]
        for owner in owners:
            owner.start()
        try:
            end = time.monotonic() + START_S
            for _ in owners:
                if not self._ready.acquire(timeout=max(0.0, end - time.monotonic())):
                    raise SqueezeDetError(f"the {self.count} workers did not start within {START_S:g} seconds")
            yield
        finally:
            self._closing.set()
            for process in list(self._live):
                process.kill()
            for owner in owners:
                owner.join()

    def submit(self, image: Prepared, score: float | None) -> Future[Detections]:
        """Run the network on an image as soon as a worker is free; of a cancelled one nothing is begun."""
        task = _Task(image, score, Future())
        self._tasks.put(task)
        return task.answer

    # ------------------------------------------------------------------ one thread for each process

    def _own(self, number: str, metrics: Metrics) -> None:
        """Keep one process alive until all are closed."""
        while not self._closing.is_set():
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_work, args=(theirs,), name=f"worker {number}", daemon=True)
            started = False
            with ours, suppress(EOFError, OSError):  # it is dead, or there is no memory for another
                try:
                    process.start()
                    theirs.close()
                    with _killed_after(process, START_S):
                        ours.send(self._detector)
                        ours.recv()  # it is ready
                    self._live.add(process)
                    started = True
                    self._ready.release()
                    self._serve(process, ours, metrics.worker_runs.labels(number))
                finally:
                    self._live.discard(process)
                    if process.pid is not None:
                        process.kill()
                        process.join()
            if not self._closing.is_set():
                LOG.error("worker %s ended (status %s) and is replaced", number, process.exitcode)
                metrics.worker_restarts.inc()
                self._closing.wait(0 if started else AGAIN_S)

    def _serve(self, process: BaseProcess, pipe: Connection, runs: Counter) -> None:
        """Give a worker what waits, as long as it lives."""
        idle = 0
        while process.is_alive() and not self._closing.is_set():
            try:
                task = self._tasks.get(timeout=TICK_S)
            except Empty:
                idle += 1
                if idle % HEARTBEAT_TICKS == 0:
                    self._ask(process, pipe, None)
                continue
            if not process.is_alive():  # it died idle, which is not this image's doing
                self._tasks.put(task)
            elif task.deaths or task.answer.set_running_or_notify_cancel():
                self._do(task, process, pipe)
                runs.inc()

    def _do(self, task: _Task, process: BaseProcess, pipe: Connection) -> None:
        """One image; an OSError or EOFError if the process died, and then the image is another's."""
        try:
            answer = self._ask(process, pipe, (task.image, task.score))
        except (EOFError, OSError):
            if task.deaths + 1 < ATTEMPTS and not self._closing.is_set():
                self._tasks.put(task._replace(deaths=task.deaths + 1))
            else:
                task.answer.set_exception(ModelError(f"{task.deaths + 1} workers died of one image"))
            raise
        if isinstance(answer, Exception):
            task.answer.set_exception(answer)
        else:
            task.answer.set_result(answer)

    def _ask(self, process: BaseProcess, pipe: Connection, what: tuple[Prepared, float | None] | None) -> Any:
        with _killed_after(process, self._stuck_s):
            pipe.send(what)
            return pipe.recv()


@contextmanager
def _killed_after(process: BaseProcess, seconds: float) -> Iterator[None]:
    """End a process that keeps the block waiting: its pipe then breaks, and the block with it."""
    clock = threading.Timer(seconds, process.kill)
    clock.daemon = True
    clock.start()
    try:
        yield
    finally:
        clock.cancel()


def _work(pipe: Connection) -> None:
    """What a worker does, until the other end of its pipe is gone."""
    # A stop is the server's to decide: it closes the pipe when the last answer is out.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        try:
            detector: Detector = pipe.recv()
        except SqueezeDetError as error:  # its file is gone, or another one
            print(f"squeezedet: {error}", file=sys.stderr)
            return
        detector.warm_up()
        pipe.send(None)
        while True:
            task = pipe.recv()
            try:
                pipe.send(task and detect(detector, *task))
            except ModelError as error:
                pipe.send(error)
