"""Read the body of a request: so many bytes, in so much time, and so many bodies at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from squeezedet.serving.metrics import Metrics
from squeezedet.serving.problems import ProblemError

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
