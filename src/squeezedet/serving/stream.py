"""``WebSocket /stream``: one binary message is one encoded image, one answer is its record.

A text message sets what follows: ``{"score": 0.3}``, the lowest score to report (null: the
model's own). Where the server has a token and the handshake did not show it, the first message
must: ``{"token": "..."}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from squeezedet.serving.guard import accepts, bearer
from squeezedet.serving.metrics import Metrics
from squeezedet.serving.pipeline import Pipeline
from squeezedet.serving.problems import ProblemError

MAX_STREAMS = 8
IDLE_S = 60.0
TOKEN_S = 5.0
"""How long a stream may be open without having shown the token."""
SEND_S = 10.0
"""How long a client may let an answer wait."""
GOING_AWAY, POLICY, TRY_AGAIN = 1001, 1008, 1013


class Streams:
    """The open streams.

    The answer to an image is sent before the next message is read, so a client that sends
    faster than it is answered is held back by its own socket.

    Args:
        pipeline: what answers.
        metrics: what is counted.
        token: what a client must show; None where nobody has to.
    """

    def __init__(self, pipeline: Pipeline, metrics: Metrics, token: str | None) -> None:
        self._pipeline, self._metrics, self._token = pipeline, metrics, token
        self._open: set[asyncio.Task[Any]] = set()
        self._stopping = asyncio.Event()

    def router(self) -> APIRouter:
        """The route."""
        routes = APIRouter()

        @routes.websocket("/stream")
        async def stream(socket: WebSocket) -> None:
            await self.serve(socket)

        return routes

    async def serve(self, socket: WebSocket) -> None:
        """Answer one client until it goes, is idle for a minute, or the server stops."""
        await socket.accept()
        if len(self._open) >= MAX_STREAMS or self._stopping.is_set():
            self._metrics.rejects.labels("streams").inc()
            await socket.close(TRY_AGAIN, f"all {MAX_STREAMS} streams are taken")
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has a task
        self._open.add(task)
        self._metrics.streams.set(len(self._open))
        try:
            await self._answer_all(socket)
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            # Gone, perhaps while it was answered (then Starlette raises a RuntimeError), or it
            # sends and never reads.
            pass
        finally:
            self._open.discard(task)
            self._metrics.streams.set(len(self._open))

    async def stop(self) -> None:
        """Let every stream send the answer that it owes, and close it."""
        self._stopping.set()
        if self._open:
            await asyncio.wait(self._open)

    async def _answer_all(self, socket: WebSocket) -> None:
        score: float | None = None
        known = self._token is None or accepts(
            self._token, bearer(socket.headers.get("authorization", ""))
        )
        while message := await self._next(socket, IDLE_S if known else TOKEN_S):
            text, content = message.get("text"), message.get("bytes")
            try:
                if text is not None:
                    settings = _settings(text)
                    score = settings.get("score", score)
                    known = known or accepts(self._token or "", settings.get("token", ""))
                if not known:
                    break
                if content is not None:
                    found = await self._pipeline.image(content, score)
                    await _send(socket, found.to_json())
            except ProblemError as problem:
                self._metrics.rejects.labels(problem.reason).inc()
                await _send(socket, json.dumps({"error": problem.sentence}))
        if known:
            await socket.close(GOING_AWAY, "the server stops, or nothing came for a minute")
        else:
            self._metrics.rejects.labels("token").inc()
            await socket.close(POLICY, 'the first message must be {"token": "..."}')

    async def _next(self, socket: WebSocket, seconds: float) -> Any:
        """The next message; None if the server stops or none comes.

        Raises:
            WebSocketDisconnect: the client is gone.
        """
        receiving = asyncio.ensure_future(socket.receive())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait(
                (receiving, stopping), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            message = receiving.result() if receiving.done() else None
        finally:
            for task in (receiving, stopping):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if message and message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        return message


async def _send(socket: WebSocket, text: str) -> None:
    async with asyncio.timeout(SEND_S):
        await socket.send_text(text)


def _settings(text: str) -> dict[str, Any]:
    """A text message, checked."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        settings = None
    if isinstance(settings, dict) and settings.keys() <= {"score", "token"}:
        score, token = settings.get("score"), settings.get("token", "")
        number = isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1
        if (score is None or number) and isinstance(token, str):
            return settings
    raise ProblemError(400, 'a text message must be {"score": number of 0 to 1}', "malformed")
