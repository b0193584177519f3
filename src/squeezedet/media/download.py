"""Fetch one image from an http or https address, within limits of time and size."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

from squeezedet.errors import DataError
from squeezedet.media.images import MAX_BYTES, too_many_bytes
from squeezedet.version import __version__

SAFE = "/%:=&~+!$,;'@()*[]"
CHUNK_BYTES = 1 << 16


def fetch(
    url: str, *, max_bytes: int = MAX_BYTES, timeout_s: float = 10.0, total_s: float = 30.0
) -> tuple[bytes, str]:
    """The body of the answer, and the content type that the server claims for it.

    Args:
        url: http or https; redirections to either are followed, to anything else not.
        max_bytes: a longer body is given up as soon as that is known.
        timeout_s: longest silence of the server.
        total_s: longest time for everything, against a server that trickles.

    Raises:
        DataError: one sentence that says what went wrong.
    """
    outcome: list[tuple[bytes, str] | BaseException] = []
    end = time.monotonic() + total_s

    def work() -> None:
        try:
            outcome.append(_fetch(url, max_bytes, timeout_s, end))
        except BaseException as error:
            outcome.append(error)

    # The limits of a socket are for one silence; name service, headers and redirections can
    # add up to any time. Who waits beside it can leave; the thread ends with its connection.
    thread = threading.Thread(target=work, name="download", daemon=True)
    thread.start()
    thread.join(total_s)
    if not outcome or isinstance(outcome[0], _TooSlowError):
        raise DataError(f"{url}: not complete after {total_s:g} seconds")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


class _TooSlowError(Exception):
    """The time is over."""


def _fetch(url: str, max_bytes: int, timeout_s: float, end: float) -> tuple[bytes, str]:
    try:
        request = urllib.request.Request(  # noqa: S310 - the opener knows http and https only
            _ascii(url),
            headers={"User-Agent": f"squeezedet/{__version__}", "Accept": "image/*,*/*"},
        )
        with _opener().open(request, timeout=timeout_s) as answer:
            _refuse_video(answer.headers.get_content_type(), url)
            return _body(answer, url, max_bytes, end), answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        error.close()
        if str(error.reason).startswith(urllib.request.HTTPRedirectHandler.inf_msg):
            raise DataError(f"{url}: the server sends the request round in a circle") from error
        reason = " ".join(str(error.reason).split())  # urllib's own reasons have several lines
        raise DataError(f"{url}: the server answers {error.code} {reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{url}: {_reason(error, timeout_s)}") from error


def _opener() -> urllib.request.OpenerDirector:
    """An opener without the ftp, file and data schemes that urllib would follow a redirect to."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _ascii(url: str) -> str:
    """The address as it goes over the wire: what a browser's address line shows, encoded."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("the address names no host")
    host = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    path, query = quote(parts.path, SAFE), quote(parts.query, SAFE + "?")
    return f"{parts.scheme.lower()}://{host}{path or '/'}" + (f"?{query}" if query else "")


def _refuse_video(content_type: str, url: str) -> None:
    """Say at once what the limits of time and size would say late."""
    if content_type == "multipart/x-mixed-replace":  # Motion JPEG
        raise DataError(f"{url}: the server sends a live video; --live reads it")
    if content_type.startswith("video/"):
        raise DataError(
            f"{url}: the server sends a video; save it to a file first and detect in that file"
        )


def _body(answer: Any, url: str, max_bytes: int, end: float) -> bytes:
    announced = answer.headers.get("Content-Length", "")
    size = int(announced) if announced.isdecimal() else None
    if size is not None and size > max_bytes:
        raise DataError(f"{url}: {too_many_bytes(max_bytes)}")
    content = bytearray()
    # read1 returns what is there: a server that trickles cannot hold us inside one call.
    while chunk := answer.read1(CHUNK_BYTES):
        content += chunk
        if len(content) > max_bytes:
            raise DataError(f"{url}: {too_many_bytes(max_bytes)}")
        if time.monotonic() > end:
            raise _TooSlowError
    if size is not None and len(content) < size:
        raise DataError(f"{url}: the connection broke off after {len(content)} of {size} bytes")
    return bytes(content)


def _reason(error: Exception, timeout_s: float) -> str:
    inner = getattr(error, "reason", error)
    cause = inner if isinstance(inner, Exception) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {timeout_s:g} seconds"
    if isinstance(cause, socket.gaierror):
        return "no such host, or no network"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted ({cause.verify_message})"
    if isinstance(cause, OSError) and cause.strerror:
        return f"cannot be reached ({cause.strerror})"
    if isinstance(cause, http.client.HTTPException):
        return f"the server does not speak HTTP ({type(cause).__name__})"
    return str(inner) or type(cause).__name__
