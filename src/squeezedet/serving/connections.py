"""Limits of one connection that HTTP servers leave open: a head that never ends, a body unread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

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
