"""``/stream``: images in, records out, one at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from squeezedet.runtime.card import Card
from squeezedet.serving import stream

from .running import DEMO, HeldEngine, Running, detector_of, picture, running

TOKEN = "correct-horse-battery"


def opened(server: Running, **settings: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/stream", compression=None, **settings)


def answer(client: ClientConnection) -> dict[str, Any]:
    return json.loads(client.recv(timeout=60))


@pytest.fixture(scope="module")
def quick(card: Card) -> Iterator[Running]:
    with running(detector_of(card, HeldEngine()), max_bytes=500_000) as it:
        yield it


def test_records(server: Running) -> None:
    with opened(server) as client:
        client.send(DEMO)
        found = answer(client)
        assert found["detections"]
        assert list(found["timing_ms"]) == ["load", "preprocess", "network", "postprocess"]
        client.send('{"score": 1}')
        client.send(DEMO)
        assert answer(client)["detections"] == []
        client.send('{"score": null}')
        client.send(DEMO)
        assert answer(client)["detections"] == found["detections"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"score": 2}', '{"score": "a"}', '{"score": true}', '{"threads": 1}'])
def test_bad_settings_and_images_are_answered(quick: Running, text: str) -> None:
    with opened(quick) as client:
        client.send(text)
        assert "score" in answer(client)["error"]
        client.send(b"no image")
        assert "not an image" in answer(client)["error"]
        client.send(picture())
        assert len(answer(client)["detections"]) == 1


def test_a_message_that_is_too_long(quick: Running) -> None:
    with opened(quick) as client:
        client.send(bytes(600_000))
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=20)
        assert client.close_code == 1009


def test_a_client_that_sends_faster_than_it_is_answered(card: Card, held: HeldEngine) -> None:
    """Its socket takes no more: nothing piles up in the server, and nothing is lost."""
    image = picture(500, 300, "BMP")  # 450 kB
    with running(detector_of(card, held)) as server, opened(server, close_timeout=0.1) as client:
        held.free.clear()
        sent = 0
        client.socket.settimeout(1)
        try:
            while sent < 200:
                client.send(image)
                sent += 1
        except (TimeoutError, ConnectionClosed):
            pass
        held.free.set()
        assert sent < 60


@pytest.mark.slow
def test_a_stop_answers_the_image_in_hand(card: Card, held: HeldEngine) -> None:
    with running(detector_of(card, held)) as server, opened(server) as client, opened(server) as idle:
        held.free.clear()
        client.send(picture())
        time.sleep(0.5)
        server.stop()
        with pytest.raises(ConnectionClosed):
            idle.recv(timeout=20)
        held.free.set()
        assert len(answer(client)["detections"]) == 1
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=20)
        assert client.close_code == 1001


def test_only_so_many(quick: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS", 1)
    with opened(quick) as first:
        first.send(picture())
        assert answer(first)["detections"]
        with opened(quick) as second:
            with pytest.raises(ConnectionClosed):
                second.recv(timeout=20)
            assert second.close_code == 1013


def test_an_idle_one_is_closed(quick: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "IDLE_S", 0.3)
    with opened(quick) as client:
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=20)
        assert client.close_code == 1001


def test_other_sites_and_other_hosts(quick: Running) -> None:
    with pytest.raises(InvalidStatus) as caught, opened(quick, origin="http://evil.example"):
        pass
    assert caught.value.response.status_code == 403
    assert b"other sites" in caught.value.response.body


@pytest.fixture(scope="module")
def guarded(card: Card) -> Iterator[Running]:
    with running(detector_of(card, HeldEngine()), token=TOKEN) as it:
        yield it


def test_the_token_in_the_handshake(guarded: Running) -> None:
    with opened(guarded, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        client.send(picture())
        assert answer(client)["detections"]


def test_the_token_in_the_first_message(guarded: Running) -> None:
    with opened(guarded) as client:
        client.send(json.dumps({"score": 0.95, "token": TOKEN}))
        client.send(picture())
        assert answer(client)["detections"] == []


@pytest.mark.parametrize("first", [b"image", '{"score": 0.3}', '{"token": "wrong"}', r'{"token": "\ud800"}', None])
def test_without_the_token(guarded: Running, first: str | bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "TOKEN_S", 0.3)
    with opened(guarded) as client:
        if first is not None:
            client.send(first)
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=20)
        assert client.close_code == 1008
