"""``WebSocket /stream``: one binary message is one encoded image, one answer is its record.

A text message sets what follows: ``{"score": 0.3}``, the lowest score to report (null: the model's own). Where the
server has a token and the handshake did not show it, the first message must: ``{"token": "..."}``. ``{"seen": ...}`` is
answered with a picture of a camera, see ``squeezedet.serving.cameras``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from squeezedet.serving.cameras import Cameras
from squeezedet.serving.connections import Connection, connection_of, longest_waiting
from squeezedet.serving.guard import CHALLENGE, accepts, shows_token
from squeezedet.serving.pipeline import Pipeline
from squeezedet.serving.problems import Metrics, ProblemError

MAX_STREAMS = 64
MAX_UNKNOWN = 64
"""So many may be open whose client has still to show the token."""
IDLE_S = 60.0
REPLACED_S = 2.0
"""Where all streams are taken, one that is idle for so long makes room for a new one."""
TOKEN_S = 5.0
"""How long a stream may be open without having shown the token."""
SEND_S = 10.0
"""How long a client may let an answer wait."""
MAX_TEXT = 4096
GOING_AWAY, POLICY, TRY_AGAIN = 1001, 1008, 1013


@dataclass(eq=False, slots=True)
class _Stream:
    socket: WebSocket
    connection: Connection
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    since: float = field(default_factory=time.monotonic)
    busy: bool = False

    @property
    def address(self) -> str:
        return self.connection.address

    async def next(self, seconds: float) -> Any:
        """The next message; None if the stream has to go or none comes; WebSocketDisconnect if the client is gone."""
        self.busy, self.since = False, time.monotonic()
        self.connection.next_message()
        receiving = asyncio.ensure_future(self.socket.receive())
        leaving = asyncio.ensure_future(self.leave.wait())
        try:
            await asyncio.wait((receiving, leaving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            message = receiving.result() if receiving.done() else None
        finally:
            for task in (receiving, leaving):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if message and message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        self.busy = True
        self.connection.message_came()
        return message

    async def send(self, answer: str | bytes) -> None:
        async with asyncio.timeout(SEND_S):
            await (self.socket.send_text(answer) if isinstance(answer, str) else self.socket.send_bytes(answer))


class Streams:
    """The open streams; ``token`` is what a client must show, None where nobody has to; ``cameras``, if there are any.

    The answer to an image is sent before the next message is read, so a client that sends faster than it is answered
    is held back by its own socket.
    """

    def __init__(self, pipeline: Pipeline, metrics: Metrics, token: str | None, cameras: Cameras | None = None) -> None:
        self._pipeline, self._metrics, self._token, self._cameras = pipeline, metrics, token, cameras
        self._open: set[_Stream] = set()
        self._unknown: set[_Stream] = set()
        self._none_left = asyncio.Event()
        self._stopping = False

    async def serve(self, socket: WebSocket) -> None:
        """Answer one client until it goes, is idle for a minute, or the server stops."""
        stream = _Stream(socket, connection_of(socket.scope))
        shown = socket.headers.get("authorization")
        if self._token is not None and shown is not None and not shows_token(shown, self._token):
            self._metrics.rejects.labels("token").inc()
            problem = ProblemError(401, "that is not this server's token", "token", CHALLENGE)
            await socket.send_denial_response(problem.response())
            return
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            # Gone, perhaps while it was answered (then Starlette raises a RuntimeError), or it
            # sends and never reads.
            await socket.accept()
            if self._token is None or shown is not None:
                await self._serve_known(stream, None)
            else:
                await self._serve_unknown(stream, self._token)

    async def stop(self) -> None:
        """Let every stream send the answer that it owes, and close it."""
        self._stopping = True
        for stream in self._open | self._unknown:
            stream.leave.set()
        if self._open:
            self._none_left.clear()
            await self._none_left.wait()

    async def _serve_unknown(self, stream: _Stream, token: str) -> None:
        """Let a client show its token in the first message, which has at most 1 kB."""
        if len(self._unknown) >= MAX_UNKNOWN:
            oldest = longest_waiting(self._unknown)
            if oldest is not None:
                self._unknown.discard(oldest)
                oldest.leave.set()
        self._unknown.add(stream)
        try:
            message = await stream.next(TOKEN_S) or {}
            settings = _settings(message.get("text") or "")
            shown = accepts(token, settings.get("token", ""))
        except ProblemError:
            shown = False
        finally:
            self._unknown.discard(stream)
        if shown:
            await self._serve_known(stream, settings.get("score"))
        else:
            self._metrics.rejects.labels("token").inc()
            await stream.socket.close(POLICY, 'the first message must be {"token": "..."}')

    async def _serve_known(self, stream: _Stream, score: float | None) -> None:
        """Answer a client that may ask, if there is room for one more."""
        stream.connection.trust()
        if self._stopping or not self._room():
            self._metrics.rejects.labels("streams").inc()
            await stream.socket.close(TRY_AGAIN, f"all {MAX_STREAMS} streams are taken")
            return
        self._open.add(stream)
        self._metrics.streams.set(len(self._open))
        try:
            await self._answer_all(stream, score)
        finally:
            self._open.discard(stream)
            self._metrics.streams.set(len(self._open))
            if not self._open:
                self._none_left.set()

    def _room(self) -> bool:
        """Whether there is a place, if need be that of one which has long sent nothing."""
        if len(self._open) < MAX_STREAMS:
            return True
        least = time.monotonic() - REPLACED_S
        idle = longest_waiting(one for one in self._open if not one.busy and one.since < least)
        if idle is None:
            return False
        self._open.discard(idle)
        idle.leave.set()
        return True

    async def _answer_all(self, stream: _Stream, score: float | None) -> None:
        while message := await stream.next(IDLE_S):
            text, content = message.get("text"), message.get("bytes")
            try:
                if text is not None:
                    settings = _settings(text)
                    score = settings.get("score", score)
                    if "seen" in settings:
                        await stream.send(await self._newest(settings["seen"]))
                if content is not None:
                    found = await self._pipeline.image(content, score, stream.address)
                    await stream.send(found.to_json())
            except ProblemError as problem:
                self._metrics.rejects.labels(problem.reason).inc()
                await stream.send(json.dumps({"error": problem.sentence}))
        await stream.socket.close(GOING_AWAY, "the server stops, or nothing came for a while")

    async def _newest(self, seen: Any) -> bytes:
        """The answer to a viewer of cameras."""
        known = self._cameras.names if self._cameras else []
        is_fit = isinstance(seen, dict) and all(name in known and type(n) is int for name, n in seen.items())
        if self._cameras and is_fit:
            return await self._cameras.next(seen)
        raise ProblemError(
            400, '"seen" must hold names of cameras, each with a number; /cameras lists them', "malformed"
        )


def _settings(text: str) -> dict[str, Any]:
    """A text message, checked."""
    try:
        settings = json.loads(text) if len(text) <= MAX_TEXT else None
    except (ValueError, RecursionError):
        settings = None
    if isinstance(settings, dict) and settings.keys() <= {"score", "token", "seen"}:
        score, token = settings.get("score"), settings.get("token", "")
        number = isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1
        if (score is None or number) and isinstance(token, str):
            return settings
    raise ProblemError(400, 'a text message must be {"score": number of 0 to 1}', "malformed")
