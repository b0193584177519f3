"""Strangers: slow, endless, malformed, too many; each is bounded, and the next one is answered."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from squeezedet.runtime.card import Card
from squeezedet.serving import connections

from .running import HeldEngine, Running, detector_of, picture, running


@contextmanager
def connected(server: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        yield connection


def everything(connection: socket.socket) -> bytes:
    """What the server says until it closes."""
    answer = b""
    try:
        while chunk := connection.recv(65536):
            answer += chunk
    except ConnectionResetError:
        pass
    return answer


def head(length: int) -> bytes:
    return b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % length


def post(server: Running, content: bytes | None = None) -> httpx.Response:
    return httpx.post(f"{server.url}/detect", content=content or picture(), timeout=30)


def depth(server: Running) -> int:
    text = httpx.get(f"{server.url}/metrics").text
    return int(float(text.split("\nsqueezedet_queue_depth ")[1].split("\n")[0]))


def wait_for_depth(server: Running, wanted: int) -> None:
    end = time.monotonic() + 20
    while depth(server) != wanted:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_full_queue_turns_away_and_loses_nothing(card: Card, held: HeldEngine) -> None:
    with running(detector_of(card, held), queue=3) as server, ThreadPoolExecutor(3) as pool:
        held.free.clear()
        accepted = [pool.submit(post, server) for _ in range(3)]
        wait_for_depth(server, 3)
        for _ in range(5):
            refused = post(server)
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
        held.free.set()
        assert [future.result().status_code for future in accepted] == [200] * 3
        assert post(server).status_code == 200
        text = httpx.get(f"{server.url}/metrics").text
        assert 'squeezedet_rejects_total{reason="full"} 5.0' in text


@pytest.mark.slow
def test_an_answer_that_takes_too_long(card: Card, held: HeldEngine) -> None:
    with running(detector_of(card, held), timeout_s=1.0) as server:
        held.free.clear()
        assert post(server).status_code == 504
        held.free.set()
        assert depth(server) == 0
        assert post(server).status_code == 200


def test_a_stop_answers_what_was_accepted(card: Card, held: HeldEngine) -> None:
    with running(detector_of(card, held)) as server, ThreadPoolExecutor(3) as pool:
        held.free.clear()
        accepted = [pool.submit(post, server) for _ in range(3)]
        wait_for_depth(server, 3)
        server.stop()
        for _ in range(1000):
            if not listens(server):
                break
            time.sleep(0.02)
        assert not listens(server)
        held.free.set()
        assert [future.result().status_code for future in accepted] == [200] * 3


def listens(server: Running) -> bool:
    try:
        with connected(server):
            return True
    except ConnectionError:
        return False


@pytest.fixture(scope="module")
def hurried(card: Card) -> Iterator[Running]:
    """A server with short times, whose model is quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "HEAD_S", 0.5)
        patch.setattr(connections, "LINGER_S", 0.5)
        with running(detector_of(card, HeldEngine()), timeout_s=1.0, max_bytes=200_000, max_pixels=1_000_000) as it:
            yield it
            assert post(it).status_code == 200  # after all that


@pytest.mark.slow
def test_a_body_that_trickles(hurried: Running) -> None:
    with connected(hurried) as connection:
        connection.sendall(head(1000))
        start = time.monotonic()
        while time.monotonic() - start < 1.5:
            try:
                connection.sendall(b"x")
            except ConnectionError:
                break
            time.sleep(0.1)
        assert b" 408 " in everything(connection)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b"])
def test_a_head_that_never_ends(hurried: Running, sent: bytes) -> None:
    with connected(hurried) as connection:
        connection.sendall(sent)
        assert everything(connection) == b""  # within the 20 seconds of the test's own socket


@pytest.mark.slow
def test_a_second_head_that_never_ends(hurried: Running) -> None:
    with connected(hurried) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v2 HTTP/1.1\r\n")
        assert everything(connection).count(b" 200 ") == 1


@pytest.mark.slow
def test_a_refused_body_that_goes_on_for_ever(hurried: Running) -> None:
    with connected(hurried) as connection:
        connection.sendall(head(10**9))
        with pytest.raises(ConnectionError):
            while True:  # the drain ends after 8 MB
                connection.sendall(bytes(100_000))


def test_a_refusal_is_read_by_a_client_that_sends_first(hurried: Running) -> None:
    response = post(hurried, bytes(3_000_000))
    assert response.status_code == 413


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000,
        b"GET /" + b"y" * 100_000,
        b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /detect HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http(hurried: Running, sent: bytes) -> None:
    with connected(hurried) as connection:
        try:
            connection.sendall(sent)
        except ConnectionError:
            return
        answer = everything(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


def test_cut_bodies_leave_nothing_behind(hurried: Running) -> None:
    for _ in range(5):
        with connected(hurried) as connection:
            connection.sendall(head(100_000) + b"x" * 500)
    assert post(hurried).status_code == 200
    assert depth(hurried) == 0


def test_bodies_together_are_bounded(hurried: Running) -> None:
    """Nine bodies of the largest size, none complete: there is room for eight."""
    with ThreadPoolExecutor(9) as pool:

        def nearly(_: int) -> bytes:
            with connected(hurried) as connection:
                connection.sendall(head(200_000) + bytes(199_000))
                return everything(connection)

        answers = list(pool.map(nearly, range(9)))
    assert sum(b" 408 " in answer for answer in answers) == 8
    assert sum(b" 503 " in answer for answer in answers) == 1


def test_too_many_connections(hurried: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as none:
        none.setattr(connections, "MAX_CONNECTIONS", 0)
        with connected(hurried) as connection:
            assert everything(connection) == b""
    with connected(hurried) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert b'squeezedet_rejects_total{reason="connections"} 1.0' in everything(connection)
