"""A few processes that decode, so that no image can harm the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np

from squeezedet.preprocess import InputRule
from squeezedet.serving.decode_process import LENGTHS, Limits, Prepared, arguments, pack
from squeezedet.serving.metrics import Metrics
from squeezedet.serving.problems import ProblemError

COUNT = 2
"""One decodes what a stranger made slow, the other goes on."""
LATE = -getattr(signal, "SIGPROF", 0)
"""How a decoder ends that takes too much time."""
GRACE_S = 1.0
"""A decoder that no longer answers gets so much time to be gone."""
BUFFER_BYTES = 1 << 21
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

T = TypeVar("T")


class Decoders:
    """Idle and busy decoders, ``COUNT`` in all.

    Args:
        rule: of the model.
        limits: of one task.
        metrics: what is counted.
    """

    def __init__(self, rule: InputRule, limits: Limits, metrics: Metrics) -> None:
        self._command = arguments(rule, limits)
        self._limits, self._metrics = limits, metrics
        self._idle: asyncio.Queue[Process] = asyncio.Queue()
        self._all: set[Process] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Start every decoder."""
        for decoder in await asyncio.gather(*(self._spawn() for _ in range(COUNT))):
            self._idle.put_nowait(decoder)

    async def close(self) -> None:
        """End every decoder."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*map(self._end, list(self._all)))

    async def image(self, body: bytes) -> Prepared:
        """Decode and resize an encoded image.

        Raises:
            ProblemError: it cannot be used.
        """
        return await self._do({"kind": "image"}, body)

    async def tensors(self, body: bytes, header_bytes: int | None) -> Prepared:
        """Read a request of the inference protocol, see ``prepare.from_tensors``.

        Raises:
            ProblemError: it is malformed.
        """
        return await self._do({"kind": "tensors", "header_bytes": header_bytes}, body)

    async def _do(self, header: dict[str, Any], body: bytes) -> Prepared:
        decoder = await self._idle.get()
        # It goes on, and is idle again afterwards, if nobody waits for its answer any more.
        fields, content = await asyncio.shield(
            self._background(self._exchange(decoder, pack(header, body)))
        )
        if "error" in fields:
            raise ProblemError(400, fields["error"], "image")
        pixels = np.frombuffer(content, np.uint8).reshape(fields.pop("shape"))
        return Prepared(pixels, **fields)

    async def _exchange(self, decoder: Process, message: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            answer = await _ask(decoder, message)
        except (OSError, EOFError):  # it is gone
            self._metrics.restarts.inc()
            late = await _status(decoder) == LATE
            self._background(self._replace(decoder))
            why = f"takes more than {self._limits.seconds:g} seconds" if late else "is too much"
            return {"error": f"image: {why} to decode"}, b""
        self._idle.put_nowait(decoder)
        return answer

    def _background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _replace(self, decoder: Process) -> None:
        await self._end(decoder)
        while True:
            try:
                self._idle.put_nowait(await self._spawn())
                return
            except (OSError, EOFError):  # no memory, or no process to be had: not now
                await asyncio.sleep(1)

    async def _spawn(self) -> Process:
        decoder = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            limit=BUFFER_BYTES,
            env=os.environ | ONE_THREAD,
        )
        self._all.add(decoder)
        await _hear(decoder)  # it is ready; a task's time does not count the start
        return decoder

    async def _end(self, decoder: Process) -> None:
        if decoder.returncode is None:
            decoder.kill()
        await decoder.communicate()  # closes the pipes, too
        self._all.discard(decoder)


async def _status(decoder: Process) -> int | None:
    """Its exit status. Nobody may signal it before: to do so reaps it, and its status is lost."""
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(decoder.wait(), GRACE_S)
    return None


async def _ask(decoder: Process, message: bytes) -> tuple[dict[str, Any], bytes]:
    assert decoder.stdin is not None  # noqa: S101 - it is a pipe
    decoder.stdin.write(message)
    await decoder.stdin.drain()
    return await _hear(decoder)


async def _hear(decoder: Process) -> tuple[dict[str, Any], bytes]:
    assert decoder.stdout is not None  # noqa: S101 - it is a pipe
    text, content = LENGTHS.unpack(await decoder.stdout.readexactly(LENGTHS.size))
    fields: dict[str, Any] = json.loads(await decoder.stdout.readexactly(text))
    return fields, await decoder.stdout.readexactly(content)
