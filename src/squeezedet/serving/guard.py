"""What a server is told of its address and limits, and what every request passes first: who it is for, where it comes
from, whether it has the token; then its body, so many bytes in so much time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.utils import ClientDisconnected

from squeezedet.errors import UsageError
from squeezedet.files import read_regular
from squeezedet.serving.connections import Holding, Memory, connection_of
from squeezedet.serving.problems import RETRY, Metrics, ProblemError

# ------------------------------------------------------------------ configuration

MAX_PIXELS = 25_000_000
"""Of one image, by default: a phone's picture of 12 million, twice."""
MAX_BYTES = 20_000_000
"""Of one request, by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where a server listens, and its limits.

    Attributes:
        host: address to listen at.
        port: 0 lets the system choose one.
        token: what a client must show; None where nobody has to.
        allow_hosts: further names that clients may call this server by.
        tls_cert, tls_key: PEM files of the certificate chain and its key; None for plain HTTP.
        queue: how many requests may wait or be worked on at once; the next is turned away.
        timeout_s: longest time for the body of a request to arrive, and again for its answer.
        max_pixels: an image of more is refused before it is decoded.
        max_bytes: a body or a message of more is refused, without reading on.

    Raises:
        UsageError: the address can be reached from elsewhere and there is no token, a host name
            is none, or the certificate cannot be used.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    allow_hosts: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    queue: int = 16
    timeout_s: float = 10.0
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        if not self.loopback and self.token is None:
            raise UsageError(
                f"`host` {self.host}: others can reach this address, so `token` is needed: what they must show"
            )
        for name in self.allow_hosts:
            if not name or not name.isascii() or any(sign in name for sign in " /:*@"):
                raise UsageError(f"`allow_host` {name!r}: a host name alone, such as camera.local")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("`tls_cert` and `tls_key` go together: a certificate and its key")
        if self.tls_cert is not None and self.tls_key is not None:
            _check_certificate(self.tls_cert, self.tls_key)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.host)

    def allows(self, host: str) -> bool:
        """Whether a client may call this server by this name (without a port).

        At a loopback address these are the names of this machine and ``allow_hosts``. Elsewhere
        any, as the token decides; but where there are ``allow_hosts``, these and addresses only.
        """
        if host.lower() in {name.lower() for name in self.allow_hosts}:
            return True
        if self.loopback:
            return is_loopback(host)
        return not self.allow_hosts or is_loopback(host) or _is_address(host)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself: 127.0.0.0/8, ::1 or localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def _check_certificate(cert: Path, key: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An encrypted key would have its password asked for on the terminal.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UsageError(
            f"`tls_cert` {cert}, `tls_key` {key}: not a certificate and its key as PEM files "
            f"without a password ({reason})"
        ) from error


# ------------------------------------------------------------------ token

MIN_LENGTH = 16
MAX_LENGTH = 1024
CHALLENGE = {"WWW-Authenticate": "Bearer"}


def read_token(path: Path) -> str:
    """The token in a file: one line of printable ASCII without blanks.

    Raises:
        UsageError: the file cannot be read, or holds no good token.
    """
    content = read_regular(path, MAX_LENGTH + 2, what="token file", error=UsageError)
    token = content.strip().decode("ascii", errors="replace")
    if not MIN_LENGTH <= len(token) <= MAX_LENGTH or not all("!" <= sign <= "~" for sign in token):
        raise UsageError(
            f"`token` {path}: a token is one line of {MIN_LENGTH} to {MAX_LENGTH} ASCII signs "
            "without blanks; make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


def accepts(token: str, shown: str) -> bool:
    """Whether the token that a client shows is the right one, compared in constant time."""
    # JSON can hold half a surrogate pair, which is no text that can be encoded as it is.
    return hmac.compare_digest(shown.encode(errors="surrogatepass"), token.encode())


def shows_token(authorization: str, token: str) -> bool:
    """Whether an ``Authorization`` header holds the right token."""
    scheme, _, shown = authorization.strip().partition(" ")
    return scheme.lower() == "bearer" and accepts(token, shown.strip())


# ------------------------------------------------------------------ body

DRAIN_S = 2.0
CLOSE = {"Connection": "close"}


class Bodies:
    """Reads bodies; ``memory`` is what all of them together may hold."""

    def __init__(self, config: ServerConfig, memory: Memory, metrics: Metrics) -> None:
        self._max_bytes, self._timeout_s = config.max_bytes, config.timeout_s
        self._memory, self._metrics = memory, metrics

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body; it counts as held until the block ends.

        Raises:
            ProblemError: it is too long (413), was not there in time (408: the client's doing), is encoded (415) or
                cut (400), or there is no room for it beside the others (503: the server's state).
        """
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ProblemError(415, "send the body as it is, not compressed", "encoding")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise self._too_long()
        loop = asyncio.get_running_loop()
        clock = asyncio.timeout(self._timeout_s)
        holding = Holding(connection_of(request.scope).address, lambda: clock.reschedule(loop.time()))
        try:
            yield await self._receive(request, holding, clock)
        finally:
            self._memory.release(holding)

    async def _receive(self, request: Request, holding: Holding, clock: asyncio.Timeout) -> bytes:
        start = time.perf_counter()
        connection = connection_of(request.scope)
        body = bytearray()
        connection.wait(True)
        try:
            async with clock:
                async for chunk in request.stream():
                    if len(body) + len(chunk) > self._max_bytes:
                        raise self._too_long()
                    if holding.dropped or not self._memory.add(holding, len(chunk)):
                        raise self._no_room()
                    body += chunk
                    connection.wait(True)
        except TimeoutError as error:
            if holding.dropped:
                raise self._no_room() from error
            sentence = f"the body was not complete within {self._timeout_s:g} seconds"
            raise ProblemError(408, sentence, "slow", CLOSE) from error
        except ClientDisconnect as error:  # nobody hears it; the metrics count it
            raise ProblemError(400, "the body was cut", "cut") from error
        finally:
            holding.unfinished = False
            connection.wait(False)
        self._metrics.stage.labels("read").observe(time.perf_counter() - start)
        return bytes(body)

    def _too_long(self) -> ProblemError:
        return ProblemError(413, f"the body has more than {self._max_bytes} bytes", "bytes")

    def _no_room(self) -> ProblemError:
        return ProblemError(503, "too many unfinished bodies at once", "memory", RETRY | CLOSE)


async def drain(receive: Receive, max_bytes: int) -> bool:
    """Throw the rest of a refused body away, within limits; whether that was all of it.

    A connection that is closed while bytes arrive is reset, and a client that is still sending may then never read
    why it was refused.
    """
    taken = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while taken <= max_bytes:
                message = await receive()
                taken += len(message.get("body", b""))
                if not message.get("more_body"):
                    return True
    return False


# ------------------------------------------------------------------ guard

OPEN = re.compile("/|/pictures|/page/.*|/v2/health/.*|/stream")
"""What needs no token: the page's files, which ask for the token themselves; health, which tells nothing; and the
stream, which looks for it (a browser can give a WebSocket no header)."""
UNREAD = (401, 403, 404, 405, 413, 415, 421, 422, 503)
"""Refusals that may come before the body is read."""
DRAIN, DRAIN_BYTES = 2, 8_000_000
"""How many times the limit of a body is then thrown away at most, or so many bytes."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Guard:
    """ASGI application around another: refuses what has no business here, counts the rest."""

    def __init__(self, app: ASGIApp, config: ServerConfig, metrics: Metrics) -> None:
        self._app, self._config, self._metrics = app, config, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        connection = connection_of(scope)
        connection.request_began()
        problem = refusal(scope, self._config)
        try:
            if scope["type"] == "websocket":
                await self._websocket(problem, scope, receive, send)
            else:
                await self._http(problem, scope, receive, send)
        finally:
            connection.request_ended()

    async def _http(self, problem: ProblemError | None, scope: Scope, receive: Receive, send: Send) -> None:
        ended = False

        async def receive_and_note() -> Message:
            nonlocal ended
            message = await receive()
            ended = not message.get("more_body")
            return message

        async def send_and_count(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                status = message["status"]
                # Not the path itself: a stranger could make any number of them.
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, str(status)).inc()
                if not ended and status in UNREAD and not _expects(scope):
                    connection_of(scope).wait(True)
                    ended = await drain(receive, max(DRAIN * self._config.max_bytes, DRAIN_BYTES))
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if not ended and status >= 400:  # the rest of the body is no request
                    headers["connection"] = "close"
            await send(message)

        await (self._refuse(problem) if problem else self._app)(scope, receive_and_note, send_and_count)

    async def _websocket(self, problem: ProblemError | None, scope: Scope, receive: Receive, send: Send) -> None:
        if problem is None and not await connection_of(scope).may_open_stream():
            sentence = "too many new streams of this address; try again in a second"
            problem = ProblemError(503, sentence, "openings", RETRY)
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await WebSocket(scope, receive, send).send_denial_response(self._refuse(problem))
            raise ClientDisconnected  # or uvicorn logs an error: strangers must not fill the log

    def _refuse(self, problem: ProblemError) -> JSONResponse:
        self._metrics.rejects.labels(problem.reason).inc()
        return problem.response()


def refusal(scope: Scope, config: ServerConfig) -> ProblemError | None:
    """Why a request has no business here, if it has none.

    - It must be addressed to a name that the server answers to: a stranger's page whose name suddenly means
      127.0.0.1 (DNS rebinding) is not.
    - A browser's request from another site's page is refused, answer unseen or not.
    - The token, if there is one.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    if not config.allows(_name(host)):
        names = ", ".join(("127.0.0.1", "localhost", *config.allow_hosts))
        sentence = f"this server answers to {names} only; serve --allow-host adds a name"
        return ProblemError(421, sentence, "host")
    origin = headers.get(b"origin")
    if origin is not None and not _same(origin.decode("latin-1"), host):
        return ProblemError(403, "requests from other sites' pages are refused", "origin")
    if config.token is None or OPEN.fullmatch(scope["path"]):
        return None
    if shows_token(headers.get(b"authorization", b"").decode("latin-1"), config.token):
        return None
    return ProblemError(401, "show the token in the header 'Authorization: Bearer TOKEN'", "token", CHALLENGE)


def _expects(scope: Scope) -> bool:
    """Whether the client sends no body before it is told to (curl, from 1 MB on)."""
    return any(name == b"expect" for name, _ in scope["headers"])


def _name(host: str) -> str:
    """The name in a Host header, "" if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets that do not close
        return ""


def _same(origin: str, host: str) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
