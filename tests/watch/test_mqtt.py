"""States, events and Home Assistant's entities, by a real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from squeezedet.errors import UsageError
from squeezedet.watch.config import Camera, Line, Mqtt, Rule, Zone
from squeezedet.watch.counting import Event, Scene
from squeezedet.watch.mqtt import Publisher, entities, state_topic, states

from .broker import broker, free_port, wait_for, with_broker

CAMERA = Camera(
    name="Main gate",
    source="0",
    lines=(Line(name="entrance", points=((0, 0), (0, 9)), directions=("in", "out")),),
    zones=(Zone(name="yard", points=((0, 0), (9, 0), (9, 9))),),
    events=(
        Rule(name="came in", when="crossed", line="entrance", mqtt=True),
        Rule(name="private", when="crossed", line="entrance"),
    ),
)


def scene() -> Scene:
    counted = Scene(CAMERA)
    counted.crossings["entrance", "car", "in"] = 3
    counted.crossings["entrance", "cyclist", "in"] = 1
    return counted


def test_numbers_of_lines_and_zones() -> None:
    assert states(Mqtt(host="x"), scene()) == {
        "squeezedet/main_gate/line/entrance": {"in": 4, "out": 0, "car in": 3, "cyclist in": 1},
        "squeezedet/main_gate/zone/yard": {"inside": 0},
    }


def test_entities_of_home_assistant() -> None:
    found = entities(Mqtt(host="x"), CAMERA)
    assert [topic.split("/")[2] for topic in found] == [
        "squeezedet_main_gate_line_entrance_in",
        "squeezedet_main_gate_line_entrance_out",
        "squeezedet_main_gate_zone_yard_inside",
    ]
    first = found["homeassistant/sensor/squeezedet_main_gate_line_entrance_in/config"]
    assert first["value_template"] == '{{ value_json["in"] }}'
    assert first["state_topic"] == "squeezedet/main_gate/line/entrance"
    assert first["availability_topic"] == "squeezedet/status"
    assert first["state_class"] == "total_increasing"
    assert len({message["unique_id"] for message in found.values()}) == 3
    assert {message["device"]["name"] for message in found.values()} == {"Main gate"}


def test_names_that_are_not_latin_have_topics_of_their_own() -> None:
    lines = tuple(Line(name=name, points=((0, 0), (0, 9)), directions=("入", "出")) for name in ("Вход", "Выход"))
    assert len(entities(Mqtt(host="b"), Camera(name="Tor", source="x", lines=lines))) == 4
    topics = {state_topic(Mqtt(host="b"), CAMERA, "line", line.name) for line in lines}
    assert len(topics) == 2
    assert all(topic.isascii() for topic in topics)


def test_two_places_of_one_topic() -> None:
    pytest.importorskip("paho.mqtt")
    lines = tuple(Line(name=name, points=((0, 0), (0, 9))) for name in ("a b", "a_b"))
    with pytest.raises(UsageError, match="lines 'a b' and 'a_b' would have one topic"):
        Publisher(Mqtt(host="b"), [Scene(Camera(name="x", source="x", lines=lines))], "", print)
    with pytest.raises(UsageError, match="cameras 'a' and 'A' would have one topic"):
        Publisher(Mqtt(host="b"), [Scene(Camera(name=name, source="x")) for name in "aA"], "", print)


# ------------------------------------------------------------------ with a broker


@pytest.fixture
def port() -> int:
    return free_port()


@contextmanager
def listening(port: int) -> Iterator[dict[str, tuple[str, bool]]]:
    """What comes: topic to payload, and whether the broker had kept it."""
    client_module = pytest.importorskip("paho.mqtt.client")
    from paho.mqtt.enums import CallbackAPIVersion

    got: dict[str, tuple[str, bool]] = {}
    client = client_module.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _c, _d, message: got.update({message.topic: (message.payload.decode(), message.retain)})
    client.connect("127.0.0.1", port)
    client.subscribe("#", qos=1)
    client.loop_start()
    try:
        yield got
    finally:
        client.disconnect()
        client.loop_stop()


@with_broker
def test_a_broker_gets_states_events_and_entities(tmp_path: Path, port: int) -> None:
    pytest.importorskip("paho.mqtt")
    said: list[str] = []
    counted = scene()
    with broker(tmp_path, port):
        publisher = Publisher(Mqtt(host="127.0.0.1", port=port), [counted], "", said.append)
        with listening(port) as got:
            event = Event(kind="alarm", camera="Main gate", time_s=1.0, place="entrance", rule="came in")
            publisher.update(counted, [event, Event(kind="alarm", camera="Main gate", time_s=1.0, rule="private")])
            wait_for(lambda: "squeezedet/main_gate/event/came_in" in got and "squeezedet/status" in got)
            assert json.loads(got["squeezedet/main_gate/event/came_in"][0])["event"] == "came in"
        with listening(port) as late:  # Home Assistant that starts later
            wait_for(lambda: len(late) == 6)
            assert late["squeezedet/status"] == ("online", True)
            assert json.loads(late["squeezedet/main_gate/line/entrance"][0])["in"] == 4
            for topic, message in entities(Mqtt(host="x"), CAMERA).items():
                assert json.loads(late[topic][0]) == message
            assert all(kept for _, kept in late.values())
            assert not any("/event/" in topic for topic in late)
            publisher.close()
            wait_for(lambda: late["squeezedet/status"][0] == "offline")
    assert said == []


@with_broker
def test_lines_that_change_while_it_runs(tmp_path: Path, port: int) -> None:
    counted = scene()
    mqtt = Mqtt(host="127.0.0.1", port=port)
    entity = "homeassistant/sensor/squeezedet_main_gate_{}/config"
    with broker(tmp_path, port), listening(port) as got:
        publisher = Publisher(mqtt, [counted], "", pytest.fail)
        publisher.update(counted, [])
        wait_for(lambda: entity.format("line_entrance_in") in got)
        counted.change(replace(CAMERA, lines=(Line(name="exit", points=((0, 0), (9, 0))),), events=()))
        publisher.change(CAMERA, counted.camera)
        publisher.update(counted, [])
        wait_for(lambda: "squeezedet/main_gate/line/exit" in got and entity.format("line_exit_left") in got)
        wait_for(lambda: got[entity.format("line_entrance_in")][0] == "")
        assert got["squeezedet/main_gate/line/entrance"][0] == ""
        assert got[entity.format("zone_yard_inside")][0]
        wait_for(lambda: json.loads(got["squeezedet/main_gate/zone/yard"][0] or "{}") == {"inside": 0})
        publisher.close()


@with_broker
def test_a_process_that_dies_is_offline(tmp_path: Path, port: int) -> None:
    pytest.importorskip("paho.mqtt")
    with broker(tmp_path, port):
        publisher = Publisher(Mqtt(host="127.0.0.1", port=port), [scene()], "", print)
        with listening(port) as got:
            wait_for(lambda: got.get("squeezedet/status", ("",))[0] == "online")
            publisher._client.on_disconnect = None
            publisher._client._sock_close()  # as a process that is killed
            wait_for(lambda: got["squeezedet/status"][0] == "offline")
        publisher.close()


@with_broker
def test_a_broker_that_forgot_is_told_again(tmp_path: Path, port: int) -> None:
    pytest.importorskip("paho.mqtt")
    said: list[str] = []
    counted = scene()
    with broker(tmp_path, port):
        publisher = Publisher(Mqtt(host="127.0.0.1", port=port), [counted], "", said.append)
        with listening(port) as got:
            publisher.update(counted, [])
            wait_for(lambda: "squeezedet/main_gate/line/entrance" in got)
    wait_for(lambda: len(said) == 1)
    with broker(tmp_path, port), listening(port) as got:
        wait_for(lambda: len(said) == 2)
        publisher.update(counted, [])
        wait_for(lambda: "squeezedet/main_gate/line/entrance" in got)
        publisher.close()


@with_broker
def test_a_broker_that_comes_later_or_refuses(tmp_path: Path, port: int) -> None:
    pytest.importorskip("paho.mqtt")
    said: list[str] = []
    counted = scene()
    publisher = Publisher(Mqtt(host="127.0.0.1", port=port), [counted], "", said.append)
    publisher.update(counted, [])
    wait_for(lambda: bool(said))
    with broker(tmp_path, port), listening(port) as got:
        wait_for(lambda: "squeezedet/main_gate/line/entrance" in got)
        publisher.close()
    assert said == ["mqtt 127.0.0.1: cannot be reached; tried again", "mqtt 127.0.0.1: answers again"]
    said.clear()
    with broker(tmp_path, port, "allow_anonymous false"):
        publisher = Publisher(Mqtt(host="127.0.0.1", port=port, user="me"), [counted], "secret", said.append)
        wait_for(lambda: bool(said))
        publisher.close()
    assert said[0].startswith("mqtt 127.0.0.1: refuses (Not authorized)")
    assert "secret" not in said[0]
