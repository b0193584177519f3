"""What a server may be told, and what it refuses to be told."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

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
        queue: how many requests may wait or be worked on at once; the next is turned away.
        timeout_s: longest time for the body of a request to arrive, and again for its answer.
        max_pixels: an image of more is refused before it is decoded.
        max_bytes: a body or a message of more is refused, without reading on.

    Raises:
        UsageError: the address can be reached from elsewhere and there is no token.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    queue: int = 16
    timeout_s: float = 10.0
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        if not self.loopback and self.token is None:
            raise UsageError(
                f"--host {self.host}: others can reach this address; name the file of a token that "
                "they must show (--token FILE)"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself: 127.0.0.0/8, ::1 or localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
