"""What a server may be told, and what it refuses to be told."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from squeezedet.errors import UsageError

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
