"""Strangers that once held the server up: small forms of each attack, and a good client beside."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from squeezedet.runtime.card import Card
from squeezedet.serving import connections, stream
from squeezedet.serving.app import listen
from squeezedet.serving.connections import Budget, Holding, Memory, _Frames, budget_address
from squeezedet.serving.guard import ServerConfig

from .running import HeldEngine, Running, detector_of, picture, running

TOKEN = "correct-horse-battery"
UPGRADE = (
    b"GET /stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
HEAD = b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def quick(card: Card) -> Iterator[Running]:
    # Nothing times out here: what goes, goes for want of room.
    with (
        many_streams(),
        running(detector_of(card, HeldEngine()), max_bytes=200_000, max_pixels=1_000_000, timeout_s=600) as it,
    ):
        yield it


@pytest.fixture(scope="module")
def guarded(card: Card) -> Iterator[Running]:
    with many_streams(), running(detector_of(card, HeldEngine()), max_bytes=200_000, token=TOKEN) as it:
        yield it


@contextmanager
def many_streams() -> Iterator[None]:
    """A server that starts now has no budget for streams that are opened, as all tests have one address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "STREAMS_AT_ONCE", 1e9)
        yield


@contextmanager
def opened(server: Running, count: int, content: bytes) -> Iterator[list[socket.socket]]:
    """So many WebSockets that are open, and have then sent something."""
    with many(server, count, UPGRADE) as found:
        for connection in found:
            connection.recv(65536)  # the server's side of the handshake
            with suppress(ConnectionError):
                connection.sendall(content)
        yield found


def streaming(server: Running) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/stream", compression=None)


@contextmanager
def many(server: Running, count: int, content: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that have sent something, and wait."""
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            address = ("127.0.0.1", server.port)
            found.append(stack.enter_context(socket.create_connection(address, timeout=20)))
            with suppress(ConnectionError):
                found[-1].sendall(content)
        yield found


def closed(connection: socket.socket) -> bool:
    """Whether the server closes it, whatever it says before."""
    with suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return True


def post(server: Running, **headers: str) -> int:
    url = f"{server.url}/detect"
    return httpx.post(url, content=picture(), headers=headers, timeout=30).status_code


def metric(server: Running, name: str, **headers: str) -> float:
    text = httpx.get(f"{server.url}/metrics", headers=headers).text
    lines = [line for line in text.splitlines() if name in line and line[0] != "#"]
    return float(lines[0].split()[-1]) if lines else 0.0


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def frame(size: int, sent: bytes = b"", first: int = 0x82) -> bytes:
    """The head of a WebSocket frame of so many bytes, and the first of them."""
    return bytes([first, 0xFF]) + struct.pack("!Q", size) + bytes(4) + sent


# ------------------------------------------------------------------- JSON


@pytest.mark.parametrize("field", ["parameters", "id", "outputs", "inputs"])
@pytest.mark.parametrize("depth", [20, 300, 985, 5000])
def test_deep_json_is_refused_and_the_server_goes_on(quick: Running, field: str, depth: int) -> None:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0] * 3}
    rest = json.dumps({"inputs": [tensor]})[1:]
    body = f'{{"{field}": {"[" * depth}{"]" * depth}, {rest}'
    for _ in range(2):
        answer = httpx.post(f"{quick.url}/v2/models/street/infer", content=body, timeout=30)
        assert (answer.status_code, "nested" in answer.json()["error"]) == (400, True)
    assert post(quick) == 200


def test_brackets_in_a_text_are_not_nesting(quick: Running) -> None:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0] * 3}
    body = {"inputs": [tensor], "id": '\\"[[[[{{{{' * 20}
    answer = httpx.post(f"{quick.url}/v2/models/street/infer", json=body, timeout=30)
    assert answer.json()["id"] == body["id"]


# ---------------------------------------------------------------- streams


def test_without_the_token_a_stream_is_refused_before_it_is_one(guarded: Running) -> None:
    with pytest.raises(InvalidStatus) as caught:
        headers = {"Authorization": "Bearer wrong"}
        connect(f"ws://127.0.0.1:{guarded.port}/stream", additional_headers=headers)
    assert caught.value.response.status_code == 401


@pytest.mark.slow
def test_without_the_token_a_stream_holds_a_kilobyte(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "TOKEN_S", 0.3)
    known = {"Authorization": f"Bearer {TOKEN}"}
    with opened(guarded, 10, frame(190_000, bytes(150_000))) as hostile:
        assert metric(guarded, "squeezedet_streams", **known) == 0
        assert post(guarded, **known) == 200
        assert all(map(closed, hostile))


def test_strangers_do_not_take_the_streams(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_UNKNOWN", 4)
    monkeypatch.setattr(stream, "MAX_STREAMS", 1)
    with opened(guarded, 12, b""), streaming(guarded) as good:
        good.send(json.dumps({"token": TOKEN}))
        good.send(picture())
        assert json.loads(good.recv(timeout=30))["detections"]


def test_idle_streams_make_room(quick: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS", 4)
    monkeypatch.setattr(stream, "REPLACED_S", 0.0)
    with opened(quick, 4, b""):
        until(lambda: metric(quick, "squeezedet_streams") == 4)
        with streaming(quick) as good:
            good.send(picture())
            assert json.loads(good.recv(timeout=30))["detections"]


@pytest.mark.slow
def test_unfinished_frames_together_are_bounded(quick: Running) -> None:
    """Room is for eight of the largest size: 30 of them, and a good client is answered."""
    with opened(quick, 30, frame(199_000, bytes(190_000))) as hostile:
        with streaming(quick) as good:
            good.send(picture())
            assert json.loads(good.recv(timeout=30))["detections"]
        assert all(map(closed, hostile[:20]))


def test_a_flood_of_pings_is_ended(quick: Running) -> None:
    with opened(quick, 1, b"") as (hostile,), pytest.raises(ConnectionError):
        while True:
            hostile.sendall(b"\x89\x80\0\0\0\0" * 1000)
    assert metric(quick, 'reason="frames"') >= 1
    assert post(quick) == 200


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_frames_are_counted_however_they_arrive(cut: int) -> None:
    small = b"\x89\x80\0\0\0\0" + b"\x82\x85\0\0\0\0" + bytes(5)
    large = frame(70_000, bytes(70_000)) + b"\x82\xfe" + struct.pack("!H", 2000) + bytes(2004)
    data = (small + large) * 3
    frames = _Frames()
    counts = [frames.count(data[at : at + cut], 1e9) for at in range(0, len(data), cut)]
    assert sum(counts) == 6
    assert _Frames().count(small * 1000, 10) == 11  # it stops there


def test_streams_opened_by_one_address_have_a_budget(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third one of an address waits, and is refused; what else it asks is answered, and so are others."""
    monkeypatch.setattr(connections, "STREAMS_AT_ONCE", 2.0)
    monkeypatch.setattr(connections, "STREAMS_PER_S", 0.001)
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    with running(detector_of(card, HeldEngine())) as server:
        with streaming(server), streaming(server), pytest.raises(InvalidStatus) as caught:
            streaming(server)
        assert (caught.value.response.status_code, caught.value.response.headers["retry-after"]) == (503, "1")
        assert metric(server, 'reason="openings"') == 1
        assert post(server) == 200
        with socket.create_connection(("127.0.0.1", server.port), source_address=("127.0.0.2", 0)) as other:
            other.sendall(UPGRADE)
            assert b" 101 " in other.recv(100)


def test_streams_opened_too_fast_wait_their_turn(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STREAMS_AT_ONCE", 1.0)
    monkeypatch.setattr(connections, "STREAMS_PER_S", 20.0)
    monkeypatch.setattr(connections, "HEAD_S", 60.0)
    with running(detector_of(card, HeldEngine())) as server, opened(server, 6, b""):
        until(lambda: metric(server, "squeezedet_streams") == 6)


def test_connections_of_one_address_have_a_budget(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS_AT_ONCE", 3.0)
    monkeypatch.setattr(connections, "CONNECTIONS_PER_S", 0.001)
    other = httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), timeout=30)
    with running(detector_of(card, HeldEngine())) as server, other:
        with many(server, 5, b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") as found:
            assert [closed(one) and b"" for one in found[3:]] == [b"", b""]
            assert all(b" 200 " in one.recv(100) for one in found[:3])
        assert 'reason="rate"} 2.0' in other.get(f"{server.url}/metrics").text


def test_a_budget_fills_again_for_each_address(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(connections.time, "monotonic", lambda: now)
    budget = Budget(2.0, 10.0)
    budget.spend("a", 12)
    assert (budget.left("a"), budget.wait_s("a"), budget.left("b")) == (-2, 1.5, 10)
    now += 3
    assert (budget.left("a"), budget.wait_s("a")) == (4, 0)
    now += 60
    assert budget.left("a") == 10
    monkeypatch.setattr(connections, "MAX_ADDRESSES", 3)
    for address in "abcdef":
        budget.spend(address)
    assert len(budget._full_at) <= 3


def test_a_long_text_message_is_not_read(quick: Running) -> None:
    with streaming(quick) as client:
        client.send("[" * 5000)
        assert "score" in json.loads(client.recv(timeout=30))["error"]


# ------------------------------------------------------- bodies and heads


def test_unfinished_bodies_keep_nobody_out(quick: Running) -> None:
    """One that goes for want of room is told 503, the server's state; 408 is for a client that is late."""
    with many(quick, 9, HEAD % 199_999 + bytes(190_000)) as hostile:
        for _ in range(5):
            assert post(quick) == 200
        refused, _, _ = select.select(hostile, [], [], 20)
        assert [b" 503 " in one.recv(100) for one in refused] == [True]  # there is room for eight


@pytest.mark.parametrize("sent", [b"", b"POST /detect HTTP/1.1\r\nHo", HEAD % 1000])
def test_half_requests_keep_nobody_out(quick: Running, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 12)
    with many(quick, 40, sent) as hostile:
        for _ in range(5):
            assert post(quick) == 200
        assert closed(hostile[0])


def test_what_is_being_answered_is_not_dropped(card: Card, held: HeldEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    body = picture()
    with running(detector_of(card, held)) as server:
        held.free.clear()
        with many(server, 2, HEAD % len(body) + body) as good:
            until(lambda: metric(server, "squeezedet_queue_depth") == 2)
            with many(server, 20, b"POST /"):
                held.free.set()
                assert all(b" 200 " in one.recv(100) for one in good)


def test_room_is_made_by_who_holds_most_and_stalls_longest() -> None:
    memory, gone = Memory(100), []

    def one(address: str, size: int) -> Holding:
        holding = Holding(address, lambda: gone.append(holding))
        assert memory.add(holding, size)
        return holding

    small, first, second = one("a", 10), one("b", 40), one("b", 40)
    assert memory.add(first, 5)  # the second has now stalled longer
    newest = one("c", 30)
    assert gone == [second]
    assert memory.total == 10 + 45 + 30
    small.unfinished = first.unfinished = False
    assert not memory.add(newest, 50)
    assert gone == [second]


def test_addresses_of_one_network_share_a_budget() -> None:
    assert budget_address("2001:db8:1:2:3::4") == budget_address("2001:db8:1:2::9")
    assert budget_address("2001:db8:1:3::4") != budget_address("2001:db8:1:2::9")
    assert budget_address("::ffff:10.0.0.1") == "10.0.0.1"
    assert budget_address("fe80::1%eth0") == budget_address("fe80::2%eth1")


def test_a_flood_of_one_address_leaves_places_to_others(card: Card, held: HeldEngine) -> None:
    body = picture()
    with (
        running(detector_of(card, held), queue=4) as server,
        httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), timeout=30) as other,
    ):
        assert other.post(f"{server.url}/detect", content=body).status_code == 200
        held.free.clear()
        with many(server, 6, HEAD % len(body) + body) as flood:
            assert b" 503 " in flood[-1].recv(100)
            until(lambda: metric(server, "squeezedet_queue_depth") == 3)
            flood[0].setblocking(False)
            held.free.set()
            assert other.post(f"{server.url}/detect", content=body).status_code == 200


# ----------------------------------------------------------------- the rest


def test_small_answers_go_at_once() -> None:
    with (
        listen(ServerConfig(port=0)) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_health_and_metrics_tell_live_decoders(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    from squeezedet.serving.decoders import Decoders

    with running(detector_of(card, HeldEngine())) as server:
        assert metric(server, "squeezedet_decoders ") == 2
        monkeypatch.setattr(Decoders, "live", property(lambda self: 0))
        answer = httpx.get(f"{server.url}/v2/health/ready")
        assert (answer.status_code, answer.json()) == (503, {"ready": False})
        assert httpx.get(f"{server.url}/v2/models/street/ready").status_code == 503
        assert httpx.get(f"{server.url}/v2/health/live").status_code == 200
        assert metric(server, "squeezedet_decoders ") == 0


def test_running_out_of_files_is_said_once(caplog: Any) -> None:
    import asyncio
    import errno

    from squeezedet.serving.app import _NoFloods

    handler, loop = _NoFloods(), asyncio.new_event_loop()
    for _ in range(300):
        handler(loop, {"message": "x", "exception": OSError(errno.EMFILE, "Too many open files")})
    loop.close()
    assert len(caplog.records) == 1


def test_versions_in_the_path(quick: Running) -> None:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0] * 3}
    for name in ("street", "squeezedet"):  # its name today, and that before version 0.2
        for path, status in (("/versions/1", 200), ("", 200), ("/versions/2", 404)):
            model = f"{quick.url}/v2/models/{name}{path}"
            assert httpx.get(model).status_code == status
            assert httpx.get(f"{model}/ready").status_code == status
            answer = httpx.post(f"{model}/infer", json={"inputs": [tensor]}, timeout=30)
            assert answer.status_code == status


def test_further_names_of_the_server(card: Card) -> None:
    with running(detector_of(card, HeldEngine()), allow_hosts=("camera.local",)) as server:
        for host, status in (("Camera.local:8000", 200), ("localhost", 200), ("other.local", 421)):
            assert httpx.get(f"{server.url}/model", headers={"Host": host}).status_code == status
