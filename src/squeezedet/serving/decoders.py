"""A few processes that decode, so that no image can harm the server.

There are two lanes. What is known to need much work (by the image's head, its size, or because it took too long) is
decoded by one process at a time, so another is always there for the rest; in each lane the client address goes first
that was served least lately.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from squeezedet.preprocess import InputRule
from squeezedet.serving.decode import LENGTHS, Limits, Prepared, arguments, pack
from squeezedet.serving.problems import RETRY, Metrics, ProblemError

COUNT, RUNS_EACH = 2, 8
WALL_S, PATIENCE = 2.0, 3
"""A task may take so long by the clock; then its decoder is replaced. A decoder that could run and is given no
processor, as on a machine with much else to do, is waited for so many times as long."""
ATTEMPTS = 3
"""How many decoders may die of a task before it is given up."""
LATE = -getattr(signal, "SIGPROF", 0)
"""How a decoder ends that takes too much processor time."""
KILLED = -getattr(signal, "SIGKILL", 0)
STUCK = 1000
"""What stands for the exit status of a decoder that did not answer in time."""
GRACE_S = 1.0
"""A decoder that no longer answers gets so much time to be gone."""
HEARTBEAT_S = 5.0
"""How often idle decoders are asked whether they live."""
LARGE_BYTES, LARGE_JSON_BYTES = 4_000_000, 500_000
"""A body of more is large whatever is in it."""
LARGE_WAITING = 8
"""So many large ones may wait."""
SLOW_S = 10.0
"""An address whose image took too long in the quick lane has the other one for so long."""
MAX_ADDRESSES = 1024
MAX_ANSWER = 1 << 26
BUFFER_BYTES = 1 << 21
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

T = TypeVar("T")
Lane = tuple[str, bool]
"""A client address, and whether the task is large."""


@dataclass(eq=False, slots=True)
class _Waiting:
    lane: Lane
    decoder: asyncio.Future[Process]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a decoder said, or with which status it died of the task."""

    fields: dict[str, Any]
    content: bytes = b""
    died: int | None = None


class Decoders:
    """Idle and busy decoders, each with the same limits: ``COUNT``, and more where many images run ``at_once``."""

    def __init__(self, rule: InputRule, limits: Limits, metrics: Metrics, at_once: int = 1) -> None:
        self._count = COUNT + at_once // RUNS_EACH
        self._command = arguments(rule, limits)
        self._limits, self._metrics = limits, metrics
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._starting: set[Process] = set()
        self._waiting: list[_Waiting] = []
        self._large = False  # whether one is being decoded
        self._served: dict[Lane, int] = {}  # in which turn it was last
        self._turn = 0
        self._slow: dict[str, float] = {}  # addresses, until when
        self._tasks: set[asyncio.Task[Any]] = set()
        self._beating: asyncio.Task[None] | None = None
        self._closing = False
        metrics.decoders.set_function(lambda: self.live)

    @property
    def live(self) -> int:
        """How many there are that can be given a task, now or when theirs is done."""
        return sum(decoder.returncode is None for decoder in self._all - self._starting)

    async def start(self) -> None:
        for decoder in await asyncio.gather(*(self._spawn() for _ in range(self._count))):
            self._release(decoder)
        self._beating = self._background(self._beat())

    async def close(self) -> None:
        self._closing = True
        if self._beating is not None:
            self._beating.cancel()
        while self._tasks or self._all:
            await asyncio.gather(*map(self._end, list(self._all)))
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def image(self, body: bytes, address: str = "") -> Prepared:
        """Decode and resize an encoded image of a client; a ProblemError if it cannot be used."""
        large = len(body) > LARGE_BYTES or time.monotonic() < self._slow.get(address, 0)
        return await self._do({"kind": "image"}, body, address, large)

    async def tensors(self, body: bytes, header_bytes: int | None, address: str = "") -> Prepared:
        """Read a request of the inference protocol, see ``decode.from_tensors``; a ProblemError if it is malformed."""
        large = (len(body) if header_bytes is None else header_bytes) > LARGE_JSON_BYTES
        return await self._do({"kind": "tensors", "header_bytes": header_bytes}, body, address, large)

    async def _do(self, header: dict[str, Any], body: bytes, address: str, large: bool) -> Prepared:
        deaths = 0
        while True:
            decoder = await self._take((address, large))
            # It goes on, and is idle again afterwards, if nobody waits for its answer any more.
            answer = await asyncio.shield(self._background(self._exchange(decoder, header | {"large": large}, body)))
            fields = answer.fields
            if answer.died == LATE and not large:
                if len(self._slow) >= MAX_ADDRESSES:
                    self._slow.clear()
                self._slow[address] = time.monotonic() + SLOW_S
                large = True
            elif answer.died is not None:
                deaths += 1
                if answer.died == LATE or deaths == ATTEMPTS:
                    raise self._given_up(answer.died)
            elif fields.get("large"):
                large = True
            elif "error" in fields:
                raise ProblemError(400, str(fields["error"]), "image")
            else:
                pixels = np.frombuffer(answer.content, np.uint8).reshape(fields.pop("shape"))
                return Prepared(pixels, **fields)

    def _given_up(self, status: int) -> ProblemError:
        if status == LATE:
            return ProblemError(400, f"image: takes more than {self._limits.seconds:g} seconds to decode", "image")
        if status in (KILLED, STUCK):  # from outside, or a machine without time: not its fault
            return ProblemError(503, "the decoders are too busy; try again", "decoder", RETRY)
        return ProblemError(400, "image: is too much to decode", "image")

    # ------------------------------------------------------------------ turns

    async def _take(self, lane: Lane) -> Process:
        """An idle decoder, in turn; a ProblemError if too many large images wait already."""
        if lane[1] and sum(one.lane[1] for one in self._waiting) >= LARGE_WAITING:
            raise ProblemError(503, "too many large images at once", "large", RETRY)
        waiting = _Waiting(lane, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._hand_out()
        try:
            return await waiting.decoder
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif not waiting.decoder.cancelled():  # it was handed out just now
                self._large = self._large and not lane[1]
                self._release(waiting.decoder.result())
            raise

    def _release(self, decoder: Process) -> None:
        self._idle.append(decoder)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._idle and (found := self._next()):
            self._waiting.remove(found)
            if found.decoder.done():  # nobody waits any more
                continue
            self._large = self._large or found.lane[1]
            self._turn += 1
            if len(self._served) >= MAX_ADDRESSES:
                self._served.clear()
            self._served[found.lane] = self._turn
            found.decoder.set_result(self._idle.pop())

    def _next(self) -> _Waiting | None:
        ready = [one for one in self._waiting if not (one.lane[1] and self._large)]
        return min(ready, key=lambda one: self._served.get(one.lane, 0), default=None)

    # ------------------------------------------------------------------ processes

    async def _exchange(self, decoder: Process, header: dict[str, Any], body: bytes) -> _Answer:
        """One task for a decoder, which is idle again afterwards or replaced."""
        before = _processor_s(decoder)
        asking = asyncio.ensure_future(_ask(decoder, pack(header, body)))
        try:
            for _ in range(PATIENCE):
                done, _ = await asyncio.wait((asking,), timeout=WALL_S)
                if done or not self._starves(decoder, before):
                    break
            if done:
                fields, content = asking.result()
                self._release(decoder)
                return _Answer(fields, content)
            used = _processor_s(decoder) - before
            status = LATE if used > self._limits.seconds / 2 else STUCK
        except Exception:  # whatever it is, this decoder is not idle again
            status = await _status(decoder)
        finally:
            asking.cancel()
            if header.get("large"):
                self._large = False
                self._hand_out()
        self._background(self._replace(decoder))
        return _Answer({}, died=status)

    def _starves(self, decoder: Process, before: float) -> bool:
        """Whether it is neither stopped nor slow itself, but gets no processor."""
        with contextlib.suppress(OSError, IndexError):
            state = Path(f"/proc/{decoder.pid}/stat").read_text().rpartition(")")[2].split()[0]
            return state in "RSD" and _processor_s(decoder) - before < self._limits.seconds / 2
        return False

    async def _beat(self) -> None:
        """Find idle decoders that do not answer, before a request does."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for _ in range(len(self._idle)):
                if self._idle:
                    await self._exchange(self._idle.pop(0), {"kind": "ping"}, b"")

    async def _watch(self, decoder: Process) -> None:
        """Replace a decoder that dies while it is idle."""
        await decoder.wait()
        if decoder in self._idle:
            self._idle.remove(decoder)
            await self._replace(decoder)

    async def _replace(self, decoder: Process) -> None:
        self._metrics.restarts.inc()
        await self._end(decoder)
        while not self._closing:
            try:
                self._release(await self._spawn())
                return
            except (OSError, EOFError, ValueError):  # no memory, no process to be had: not now
                await asyncio.sleep(1)

    async def _spawn(self) -> Process:
        decoder = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=BUFFER_BYTES, env=os.environ | ONE_THREAD
        )
        self._all.add(decoder)
        self._starting.add(decoder)
        try:
            await _hear(decoder)  # it is ready; a task's time does not count the start
        except BaseException:
            await self._end(decoder)
            raise
        finally:
            self._starting.discard(decoder)
        self._background(self._watch(decoder))
        return decoder

    async def _end(self, decoder: Process) -> None:
        self._all.discard(decoder)
        if decoder.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # Not its own method: that reaps a dead one, and asyncio then misses its status.
                os.kill(decoder.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        if decoder.stdin is not None:
            decoder.stdin.close()
        await decoder.wait()

    def _background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _processor_s(decoder: Process) -> float:
    """Seconds of processor time that a process has used; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0.0
    with contextlib.suppress(OSError):
        return time.clock_gettime(~decoder.pid << 3 | 2)  # CPUCLOCK_SCHED of another process
    return 0.0


async def _status(decoder: Process) -> int:
    """Its exit status. Nobody may signal it before: to do so reaps it, and its status is lost."""
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(asyncio.shield(decoder.wait()), GRACE_S)
    return STUCK


async def _ask(decoder: Process, message: bytes) -> tuple[dict[str, Any], bytes]:
    assert decoder.stdin is not None  # noqa: S101 - it is a pipe
    decoder.stdin.write(message)
    await decoder.stdin.drain()
    return await _hear(decoder)


async def _hear(decoder: Process) -> tuple[dict[str, Any], bytes]:
    assert decoder.stdout is not None  # noqa: S101 - it is a pipe
    text, content = LENGTHS.unpack(await decoder.stdout.readexactly(LENGTHS.size))
    if text + content > MAX_ANSWER:
        raise ValueError("a decoder's answer is too long")
    fields: dict[str, Any] = json.loads(await decoder.stdout.readexactly(text))
    return fields, await decoder.stdout.readexactly(content)
