"""What every request passes first: who it is for, where it comes from, whether it has the token."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.http.h11_impl import H11Protocol

from squeezedet.errors import UsageError
from squeezedet.serving.config import ServerConfig, is_loopback
from squeezedet.serving.metrics import Metrics
from squeezedet.serving.problems import ProblemError

# ---- connections: Limits of one connection that HTTP servers leave open: a head that never ends,

MAX_CONNECTIONS = 512
MAX_HEAD_BYTES = 16_384
HEAD_S = 5.0
"""Longest time for the head of a request to arrive."""
LINGER_S = 2.0
"""How long a body is read on, and thrown away, after the answer."""
LINGER = 2
"""How many times the limit of a body that may be."""


class Connection(H11Protocol):
    """uvicorn's connection with two clocks and a count.

    Args:
        refused: called for each connection that is one too many.
        uvicorns: what uvicorn gives.
    """

    _clock: asyncio.TimerHandle | None = None
    _phase: str | None = None
    _lingered = 0

    def __init__(self, *, refused: Callable[[], object], **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._refused = refused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse one too many, and start the clock of the head."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refused()
            transport.abort()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Hand on, and see where the request stands."""
        if self._phase == "linger":
            self._lingered += len(data)
            if self._lingered > LINGER * self.config.ws_max_size:
                self.transport.abort()
                return
        try:
            super().data_received(data)
        except h11.LocalProtocolError:  # garbage behind a request that is being answered
            self.transport.abort()
        self._watch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """From here on the connection is another protocol's."""
        super().handle_websocket_upgrade(event)
        self._stop_clock()

    def on_response_complete(self) -> None:
        """The rest of the body, if there is any, has to come soon."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to be watched."""
        self._stop_clock()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also if the client never reads its last answer."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def _watch(self) -> None:
        phase = self._where()
        if phase == self._phase:
            return
        self._stop_clock()
        self._phase = phase
        if phase is not None:
            seconds = HEAD_S if phase == "head" else LINGER_S
            self._clock = self.loop.call_later(seconds, self.transport.abort)

    def _where(self) -> str | None:
        if self.transport.get_protocol() is not self:
            return None
        state: Any = self.conn.their_state
        if state is h11.IDLE:
            return "head"
        answered = self.cycle is not None and self.cycle.response_complete
        if state is h11.ERROR or (state is h11.SEND_BODY and answered):
            return "linger"
        return None

    def _stop_clock(self) -> None:
        self._phase = None
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


# ---- auth: The token that a client must show where a server can be reached from elsewhere.

MIN_LENGTH = 16
MAX_LENGTH = 1024
CHALLENGE = "Bearer"


def read_token(path: Path) -> str:
    """The token in a file: one line of printable ASCII without blanks.

    Raises:
        UsageError: the file cannot be read, or holds no good token.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LENGTH + 2)
    except OSError as error:
        raise UsageError(f"--token {path}: {error.strerror or error}") from error
    token = content.strip().decode("ascii", errors="replace")
    if not MIN_LENGTH <= len(token) <= MAX_LENGTH or not all("!" <= sign <= "~" for sign in token):
        raise UsageError(
            f"--token {path}: a token is one line of {MIN_LENGTH} to {MAX_LENGTH} ASCII signs "
            "without blanks; make one with: python -c 'import secrets; "
            "print(secrets.token_urlsafe())'"
        )
    return token


def accepts(token: str, shown: str) -> bool:
    """Whether the token that a client shows is the right one, compared in constant time."""
    # JSON can hold half a surrogate pair, which is no text that can be encoded as it is.
    return hmac.compare_digest(shown.encode(errors="surrogatepass"), token.encode())


def bearer(authorization: str) -> str:
    """The token of an ``Authorization`` header, "" if it holds none."""
    scheme, _, token = authorization.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


# ---- body: Read the body of a request: so many bytes, in so much time, and so many bodies at onc

DRAIN_S = 2.0
HELD = 8
"""All bodies together hold at most so many times the limit of one."""
RETRY = {"Retry-After": "1"}


class Bodies:
    """The bodies that are held at this moment.

    Args:
        max_bytes: of one body.
        timeout_s: for the whole of one body, against a client that trickles.
        metrics: what is counted.
    """

    def __init__(self, max_bytes: int, timeout_s: float, metrics: Metrics) -> None:
        self.held = 0
        self._max_bytes, self._timeout_s, self._metrics = max_bytes, timeout_s, metrics

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body; it counts as held until the block ends.

        Raises:
            ProblemError: too long (413), too slow (408), encoded (415), cut (400), or there are
                too many others (503).
        """
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ProblemError(415, "send the body as it is, not compressed", "encoding")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise self._too_long()
        body = bytearray()
        try:
            await self._receive(request, body)
            yield bytes(body)
        finally:
            self.held -= len(body)

    async def _receive(self, request: Request, body: bytearray) -> None:
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > self._max_bytes:
                        raise self._too_long()
                    if self.held + len(chunk) > HELD * self._max_bytes:
                        raise ProblemError(503, "too many bodies at once", "memory", RETRY)
                    body += chunk
                    self.held += len(chunk)
        except TimeoutError as error:
            sentence = f"the body was not complete within {self._timeout_s:g} seconds"
            raise ProblemError(408, sentence, "slow", {"Connection": "close"}) from error
        except ClientDisconnect as error:  # nobody hears it; the metrics count it
            raise ProblemError(400, "the body was cut", "cut") from error
        self._metrics.stage.labels("read").observe(time.perf_counter() - start)

    def _too_long(self) -> ProblemError:
        return ProblemError(413, f"the body has more than {self._max_bytes} bytes", "bytes")


async def drain(receive: Receive, max_bytes: int) -> None:
    """Throw the rest of a refused body away, within limits.

    A connection that is closed while bytes arrive is reset, and a client that is still sending
    may then never read why it was refused.
    """
    taken = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while taken <= max_bytes:
                message = await receive()
                taken += len(message.get("body", b""))
                if not message.get("more_body"):
                    return


# ---- guard: What every request passes first: who it is for, where it comes from, whether it has

OPEN = re.compile("/|/page/.*|/v2/health/.*|/stream")
"""What needs no token: the page's files, which come with the package and ask for the token
themselves; health, which tells nothing; and the stream, which looks for it (a browser can give a
WebSocket no header)."""
UNREAD = (401, 403, 404, 405, 413, 415, 421, 422, 503)
"""Refusals that may come before the body is read."""
DRAIN = 2
"""How many times the limit of a body is then thrown away at most."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Guard:
    """ASGI application around another: refuses what has no business here, counts the rest.

    Args:
        app: the application.
        config: of the server.
        metrics: what is counted.
    """

    def __init__(self, app: ASGIApp, config: ServerConfig, metrics: Metrics) -> None:
        self._app, self._config, self._metrics = app, config, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        problem = refusal(scope, self._config)
        if scope["type"] == "websocket":
            await self._websocket(problem, scope, receive, send)
            return

        ended = False

        async def receive_and_note() -> Message:
            nonlocal ended
            message = await receive()
            ended = not message.get("more_body")
            return message

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _completed(message.get("headers", []))
                self._count(scope, status)
                if not ended and status in UNREAD and not _expects(scope):
                    await drain(receive, DRAIN * self._config.max_bytes)
            await send(message)

        if problem is None:
            await self._app(scope, receive_and_note, send_and_count)
        else:
            self._metrics.rejects.labels(problem.reason).inc()
            await problem.response()(scope, receive_and_note, send_and_count)

    async def _websocket(
        self, problem: ProblemError | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if problem is None:
            await self._app(scope, receive, send)
            return
        self._metrics.rejects.labels(problem.reason).inc()
        await WebSocket(scope, receive, send).send_denial_response(problem.response())

    def _count(self, scope: Scope, status: int) -> None:
        # Not the path itself: a stranger could make any number of them.
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, str(status)).inc()


def refusal(scope: Scope, config: ServerConfig) -> ProblemError | None:
    """Why a request has no business here, if it has none.

    - On a loopback address it must be addressed to this machine by name: a stranger's page whose
      name suddenly means 127.0.0.1 (DNS rebinding) is not.
    - A browser's request from another site's page is refused, answer unseen or not.
    - The token, if there is one.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    if config.loopback and not _is_here(host):
        return ProblemError(421, "this server answers to 127.0.0.1 and localhost only", "host")
    origin = headers.get(b"origin")
    if origin is not None and not _same(origin.decode("latin-1"), host):
        return ProblemError(403, "requests from other sites' pages are refused", "origin")
    if config.token is None or OPEN.fullmatch(scope["path"]):
        return None
    if accepts(config.token, bearer(headers.get(b"authorization", b"").decode("latin-1"))):
        return None
    return ProblemError(
        401,
        "show the token in the header 'Authorization: Bearer TOKEN'",
        "token",
        {"WWW-Authenticate": CHALLENGE},
    )


def _expects(scope: Scope) -> bool:
    """Whether the client sends no body before it is told to (curl, from 1 MB on)."""
    return any(name == b"expect" for name, _ in scope["headers"])


def _is_here(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:  # brackets that do not close
        return False


def _same(origin: str, host: str) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _completed(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers with the security ones, which a route may have set otherwise."""
    given = {name.lower() for name, _ in headers}
    return [*headers, *(item for item in _ENCODED.items() if item[0] not in given)]


def _encoded(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in headers.items()}


_ENCODED = _encoded(HEADERS)
