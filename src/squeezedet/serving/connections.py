"""Every connection from its first byte on: how long it may wait, and how much it may hold.

``Connection`` stands between the transport and uvicorn's protocol, so what arrives is counted
before anything parses it. Where there is no room left, what goes is what its client has kept
waiting longest, of the client address that holds most: whoever sends a request whole gets in.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from squeezedet.serving.metrics import Metrics

MAX_CONNECTIONS = 512
SPARE_FILES = 160
"""File descriptors that are none of a client's: decoders, libraries, what is being accepted."""
HEAD_S = 5.0
"""Longest time for the head of a request to arrive."""
LINGER_S = 2.0
"""How long a closed connection waits for its client to read the last answer."""
FIRST_BYTES = 1024
"""A WebSocket whose client has not shown the token takes no more than that."""
FRAMES_PER_S, FRAMES_AT_ONCE = 200.0, 400.0
"""Small WebSocket frames (pings, settings, fragments) that one client address may send."""
SMALL_FRAME = 1024
STATE = "connection"
"""The key of a request's connection in the scope's ``state``."""


def client_address(scope: Scope) -> str:
    """What budgets go by: the client's address, of IPv6 the network of 64 bits."""
    client = scope.get("client")
    return budget_address(client[0]) if client else ""


def budget_address(host: str) -> str:
    """The same, of an address in text."""
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
    address: str
    since: float


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


# ------------------------------------------------------------------ bytes


@dataclass(eq=False, slots=True)
class Holding:
    """Bytes of one body or message.

    Attributes:
        address: of the client.
        drop: what ends it when room is needed; it is told at most once.
        size: bytes so far.
        unfinished: whether the client still has to send; only then may it be dropped.
        dropped: whether it was.
        since: when the last of it came.
    """

    address: str
    drop: Callable[[], object]
    size: int = 0
    unfinished: bool = True
    dropped: bool = False
    since: float = field(default_factory=time.monotonic)


class Memory:
    """The bytes that all clients together let the server hold.

    Args:
        limit: in bytes.
    """

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
        """Forget its bytes."""
        self.total -= holding.size
        holding.size = 0
        self._holdings.discard(holding)


# ------------------------------------------------------------------ connections


class Connections:
    """The open connections, and what their addresses have left.

    Args:
        memory: what holds their bytes.
        metrics: what is counted.
    """

    def __init__(self, memory: Memory, metrics: Metrics) -> None:
        self.memory, self._metrics = memory, metrics
        self.open: set[Connection] = set()
        self._frames: dict[str, tuple[float, float]] = {}  # address -> frames left, when

    def protocol(self, **uvicorns: Any) -> asyncio.Protocol:
        """What uvicorn makes for each connection; it is given as its ``http`` protocol."""
        return Connection(self, **uvicorns)

    def admit(self, connection: Connection) -> bool:
        """Let one more in, if need be instead of one that keeps the server waiting."""
        if len(self.open) >= most_connections():
            self._metrics.rejects.labels("connections").inc()
            victim = longest_waiting(one for one in self.open if one.waits)
            if victim is None:
                return False
            self.open.discard(victim)
            victim.abort()
        self.open.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self.open.discard(connection)
        self.memory.release(connection.holding)
        if not any(one.address == connection.address for one in self.open):
            self._frames.pop(connection.address, None)

    def frames_left(self, address: str) -> float:
        """How many small frames an address may send now."""
        left, when = self._frames.get(address, (FRAMES_AT_ONCE, 0.0))
        now = time.monotonic()
        left = min(FRAMES_AT_ONCE, left + (now - when) * FRAMES_PER_S)
        self._frames[address] = left, now
        return left

    def spend_frames(self, address: str, count: int) -> None:
        """Take them off."""
        left, when = self._frames[address]
        self._frames[address] = left - count, when

    def reject(self, reason: str) -> None:
        """Count one."""
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

    Args:
        connections: it is one of.
        app_state, uvicorns: what uvicorn gives its protocols.

    Attributes:
        address: of the client, as budgets go by it.
        waits: whether the server waits for the client, so that nothing that it accepted is lost
            if the connection is dropped.
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
        self._frames: _Frames | None = None
        self._allowed: int | None = FIRST_BYTES  # of a WebSocket; None: any number
        self._later = b""

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
            data = self._gate(data)
        elif self._idle:
            self._start_clock()
        try:
            self.inner.data_received(data)
        except h11.LocalProtocolError:  # garbage behind a request that is being answered
            self.abort()

    def eof_received(self) -> None:
        """Hand on."""
        self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_clock()
        self._all.forget(self)
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Hand on."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        self.inner.resume_writing()

    def abort(self) -> None:
        """Close it here and now."""
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
    def gated(self) -> bool:
        """Whether it takes no more before the token has been shown."""
        return bool(self._later)

    def _gate(self, data: bytes) -> bytes:
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
        left = self._all.frames_left(self.address)
        small = frames.count(data, left)
        self._all.spend_frames(self.address, small)
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


class _Transport:
    """The transport that uvicorn's protocol sees: it stays this connection's, and close ends it."""

    def __init__(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        self._connection, self._transport = connection, transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self._connection.upgraded(protocol)

    def resume_reading(self) -> None:
        if not self._connection.gated:
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
