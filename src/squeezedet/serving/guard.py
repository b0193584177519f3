"""What every request passes first: who it is for, where it comes from, whether it has the token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from squeezedet.serving.auth import CHALLENGE, accepts, bearer
from squeezedet.serving.body import drain
from squeezedet.serving.config import ServerConfig, is_loopback
from squeezedet.serving.metrics import Metrics
from squeezedet.serving.problems import ProblemError

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
