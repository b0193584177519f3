"""Every connection from its first byte on: how long it may wait, and how much it may hold.

``Connection`` stands between the transport and uvicorn's protocol, so what arrives is counted before anything
parses it. Where there is no room left, what goes is what its client has kept waiting longest, of the client address
that holds most: whoever sends a request whole gets in.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from squeezedet.serving.problems import Metrics

MAX_CONNECTIONS = 512
SPARE_FILES = 160
"""File descriptors that are none of a client's: decoders, libraries, what is being accepted."""
HEAD_S = 5.0
"""Longest time for the head of a request to arrive."""
LINGER_S = 2.0
"""How long a closed connection waits for its client to read the last answer."""
FIRST_BYTES = 1024
"""A WebSocket whose client has not shown the token takes no more than that."""
SMALL_FRAME = 1024
# What one client address may do: so often a second, and so often at once.
CONNECTIONS_PER_S, CONNECTIONS_AT_ONCE = 300.0, 600.0
STREAMS_PER_S, STREAMS_AT_ONCE = 5.0, 16.0
"""WebSockets opened: each costs as much as some hundred refused connections."""
FRAMES_PER_S, FRAMES_AT_ONCE = 200.0, 400.0
"""Small WebSocket frames (pings, settings, fragments)."""
MAX_ADDRESSES = 4096
STATE = "connection"
"""The key of a request's connection in the scope's ``state``."""


def budget_address(host: str) -> str:
    """What budgets go by: the client's address, of IPv6 the network of 64 bits."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return host


class _Waiting(Protocol):
    since: float

    @property
    def address(self) -> str: ...


T = TypeVar("T", bound=_Waiting)


def longest_waiting(found: Iterable[T], weight: Callable[[T], int] = lambda _: 1) -> T | None:
    """Of the address that weighs most, what has waited longest for its client; None of none."""
    found = list(found)
    if not found:
        return None
    weights: Counter[str] = Counter()
    for one in found:
        weights[one.address] += weight(one)
    heaviest = max(weights, key=weights.__getitem__)
    return min((one for one in found if one.address == heaviest), key=lambda one: one.since)


# ------------------------------------------------------------------ budgets


@dataclass(eq=False, slots=True)
class Holding:
    """Bytes of one body or message.

    Attributes:
        drop: what ends it when room is needed; it is called at most once.
        unfinished: whether the client still has to send; only then may it be dropped.
        since: when the last of it came.
    """

    address: str
    drop: Callable[[], object]
    size: int = 0
    unfinished: bool = True
    dropped: bool = False
    since: float = field(default_factory=time.monotonic)


class Memory:
    """The bytes that all clients together let the server hold, ``limit`` at most."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._holdings: set[Holding] = set()

    def add(self, holding: Holding, size: int) -> bool:
        """Count more bytes; False if there is no room for them, even without all that stalls."""
        self._holdings.add(holding)
        while self.total + size > self.limit:
            others = [one for one in self._holdings if one.unfinished and one is not holding]
            victim = longest_waiting(others, lambda one: one.size)
            if victim is None:
                return False
            self.release(victim)
            victim.dropped = True
            victim.drop()
        holding.size += size
        holding.since = time.monotonic()
        self.total += size
        return True

    def release(self, holding: Holding) -> None:
        self.total -= holding.size
        holding.size = 0
        self._holdings.discard(holding)


class Budget:
    """A token bucket for each client address: ``per_s`` a second, ``at_once`` after a pause."""

    def __init__(self, per_s: float, at_once: float) -> None:
        self._per_s, self._at_once = per_s, at_once
        self._full_at: dict[str, float] = {}  # a bucket that is not here is full

    def left(self, address: str) -> float:
        missing_s = max(0.0, self._full_at.get(address, 0.0) - time.monotonic())
        return self._at_once - missing_s * self._per_s

    def wait_s(self, address: str) -> float:
        return max(0.0, (1 - self.left(address)) / self._per_s)

    def spend(self, address: str, count: float = 1) -> None:
        now = time.monotonic()
        if len(self._full_at) >= MAX_ADDRESSES:
            self._full_at = {one: when for one, when in self._full_at.items() if when > now}
        if len(self._full_at) >= MAX_ADDRESSES:  # all of them in debt: rather forgive than grow
            self._full_at.clear()
        self._full_at[address] = max(now, self._full_at.get(address, 0.0)) + count / self._per_s


# ------------------------------------------------------------------ connections


class Connections:
    """The open connections, and what their addresses have left; ``memory`` holds their bytes."""

    def __init__(self, memory: Memory, metrics: Metrics) -> None:
        self.memory, self._metrics = memory, metrics
        self.open: set[Connection] = set()
        self.streams = Budget(STREAMS_PER_S, STREAMS_AT_ONCE)
        self.frames = Budget(FRAMES_PER_S, FRAMES_AT_ONCE)
        self._opened = Budget(CONNECTIONS_PER_S, CONNECTIONS_AT_ONCE)

    def protocol(self, **uvicorns: Any) -> asyncio.Protocol:
        """What uvicorn makes for each connection; it is given as its ``http`` protocol."""
        return Connection(self, **uvicorns)

    def admit(self, connection: Connection) -> bool:
        """Let one more in, if need be instead of one that keeps the server waiting."""
        if self._opened.left(connection.address) < 1:
            self.reject("rate")
            return False
        self._opened.spend(connection.address)
        if len(self.open) >= most_connections():
            self.reject("connections")
            victim = longest_waiting(one for one in self.open if one.waits)
            if victim is None:
                return False
            self.open.discard(victim)
            victim.abort()
        self.open.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        self.open.discard(connection)
        self.memory.release(connection.holding)

    def reject(self, reason: str) -> None:
        self._metrics.rejects.labels(reason).inc()


def most_connections() -> int:
    """How many may be open: fewer where the system allows the process few files."""
    try:
        import resource
    except ImportError:  # Windows
        return MAX_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(files - SPARE_FILES, files // 4))


class Connection(asyncio.Protocol):
    """One connection: uvicorn's protocol inside, clocks and counts around it.

    Attributes:
        address: of the client, as budgets go by it.
        waits: whether the server waits for the client, so that nothing that it accepted is lost if the connection
            is dropped.
        since: when it began to wait.
        holding: the bytes of a WebSocket's message that is not complete.
    """

    def __init__(self, connections: Connections, *, app_state: dict[str, Any], **uvicorns: Any) -> None:
        self.inner: asyncio.Protocol = H11Protocol(app_state=app_state | {STATE: self}, **uvicorns)
        self.address, self.waits, self.since = "", True, time.monotonic()
        self.holding = Holding("", self.abort)
        self._all = connections
        self._clock: asyncio.TimerHandle | None = None
        self._idle = True
        self._frames: _Frames | None = None  # of a WebSocket
        self._allowed: int | None = FIRST_BYTES  # of a WebSocket; None: any number
        self._later = b""

    # ------------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, or refuse one too many."""
        self.transport: Any = transport
        peer = transport.get_extra_info("peername")
        self.address = self.holding.address = budget_address(str(peer[0])) if peer else ""
        self.inner.connection_made(_Transport(self, transport))  # type: ignore[arg-type]
        if self._all.admit(self):
            self._start_clock()
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Count, and hand on."""
        if self._frames is not None:
            if not self._fits(self._frames, data):
                self.abort()
                return
            data = self._before_token(data)
        elif self._idle:
            self._start_clock()
        try:
            self.inner.data_received(data)
        except h11.LocalProtocolError:  # garbage behind a request that is being answered
            self.abort()

    def eof_received(self) -> None:
        self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._all.forget(self)
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    # ------------------------------------------------------------------ the application's side

    def abort(self) -> None:
        self.transport.abort()

    def wait(self, waits: bool) -> None:
        """Whether the server waits for the client, from now on."""
        self.waits, self.since = waits, time.monotonic()

    def request_began(self) -> None:
        """A head is complete, and its request is being worked on."""
        self._idle = False
        self._stop_clock()
        self.wait(False)

    def request_ended(self) -> None:
        """It is answered; the next may come."""
        self._idle = True
        self.wait(True)

    async def may_open_stream(self) -> bool:
        """Wait until this address may open one more WebSocket; False if that is too long.

        A refusal waits as well: a client that is told at once asks again at once.
        """
        wait_s = self._all.streams.wait_s(self.address)
        if wait_s <= HEAD_S:
            self._all.streams.spend(self.address)
        if wait_s:
            self.wait(True)
            await asyncio.sleep(min(wait_s, HEAD_S))
            self.wait(False)
        return wait_s <= HEAD_S

    def upgraded(self, protocol: asyncio.Protocol) -> None:
        """From now on it is a WebSocket."""
        self.inner, self._frames = protocol, _Frames()
        self._stop_clock()

    def trust(self) -> None:
        """The WebSocket's client has shown the token, or need not."""
        self._allowed = None
        later, self._later = self._later, b""
        if later and not self.transport.is_closing():
            self.transport.resume_reading()
            self.inner.data_received(later)

    def next_message(self) -> None:
        """The last message is answered, and the next is waited for."""
        self._all.memory.release(self.holding)
        self.holding.unfinished = True

    def message_came(self) -> None:
        """A message is complete; it goes on being held."""
        self.holding.unfinished = False

    @property
    def waits_for_token(self) -> bool:
        """Whether it takes no more before the token has been shown."""
        return bool(self._later)

    def _before_token(self, data: bytes) -> bytes:
        """The part that may be read now; the rest waits for the token, and its sender for that."""
        if self._allowed is None:
            return data
        now, later = data[: self._allowed], data[self._allowed :]
        self._allowed -= len(now)
        if later:
            self._later += later
            self.transport.pause_reading()
        return now

    def _fits(self, frames: _Frames, data: bytes) -> bool:
        left = self._all.frames.left(self.address)
        small = frames.count(data, left)
        self._all.frames.spend(self.address, small)
        if small > left:
            self._all.reject("frames")
            return False
        if not self._all.memory.add(self.holding, len(data)):
            self._all.reject("memory")
            return False
        return True

    def _start_clock(self) -> None:
        self._stop_clock()
        self._idle = False
        self.wait(True)
        self._clock = asyncio.get_running_loop().call_later(HEAD_S, self.abort)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


def connection_of(scope: Scope) -> Connection:
    """The connection on which a request came."""
    return cast(Connection, scope["state"][STATE])


class _Transport:
    """The transport that uvicorn's protocol sees: it stays this connection's, and close ends it."""

    def __init__(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        self._connection, self._transport = connection, transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self._connection.upgraded(protocol)

    def resume_reading(self) -> None:
        if not self._connection.waits_for_token:
            self._transport.resume_reading()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close when all is written, and soon even if the client reads nothing."""
        self._transport.close()
        asyncio.get_running_loop().call_later(LINGER_S, self._connection.abort)


class _Frames:
    """Counts the small frames in the bytes of a WebSocket, and keeps none of them."""

    def __init__(self) -> None:
        self._head, self._skip = b"", 0

    def count(self, data: bytes, most: float) -> int:
        """How many begin in these bytes; the count stops above ``most``."""
        at = found = 0
        while found <= most:
            step = min(self._skip, len(data) - at)
            at += step
            self._skip -= step
            if at == len(data):
                break
            head = self._head + data[at : at + 10]
            need = 2 + {126: 2, 127: 8}.get(head[1] & 127, 0) if len(head) > 1 else 2
            if len(head) < need:
                self._head = head
                break
            at += need - len(self._head)
            self._head = b""
            size = head[1] & 127 if need == 2 else int.from_bytes(head[2:need], "big")
            self._skip = size + (4 if head[1] & 128 else 0)
            found += size < SMALL_FRAME
        return found
