"""MQTT: states that are kept by the broker, events, and entities that Home Assistant finds by itself."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from squeezedet.errors import MissingExtraError, UsageError
from squeezedet.version import __version__
from squeezedet.watch.config import Camera, Mqtt
from squeezedet.watch.counting import Event, Scene

QUEUED = 1000
"""So many messages wait while the broker is away."""


def slug(text: str) -> str:
    """A name as part of a topic and of an entity's id; one with other letters than a to z ends with its CRC-32."""
    plain = re.sub(r"[^a-z0-9_-]+", "_", text.lower())
    return plain if text.isascii() else f"{plain.strip('_')}_{zlib.crc32(text.encode()):08x}".lstrip("_")


def state_topic(mqtt: Mqtt, camera: Camera, kind: str, place: str) -> str:
    """Where the numbers of a line or a zone stand."""
    return f"{mqtt.topic}/{slug(camera.name)}/{kind}/{slug(place)}"


def entities(mqtt: Mqtt, camera: Camera) -> dict[str, dict[str, Any]]:
    """Home Assistant's discovery messages for a camera, by topic: a sensor for each direction and each zone."""
    device = {
        "identifiers": [f"{slug(mqtt.topic)}_{slug(camera.name)}"],
        "name": camera.name,
        "manufacturer": "squeezedet",
        "sw_version": __version__,
    }
    found = {}
    sensors = [(line.name, "line", way, "total_increasing") for line in camera.lines for way in line.directions]
    sensors += [(zone.name, "zone", "inside", "measurement") for zone in camera.zones]
    for place, kind, what, state_class in sensors:
        unique = f"{slug(mqtt.topic)}_{slug(camera.name)}_{kind}_{slug(place)}_{slug(what)}"
        found[f"{mqtt.discovery}/sensor/{unique}/config"] = {
            "name": f"{place} {what}",
            "unique_id": unique,
            "state_topic": state_topic(mqtt, camera, kind, place),
            "value_template": "{{ value_json[" + json.dumps(what) + "] }}",
            "json_attributes_topic": state_topic(mqtt, camera, kind, place),
            "availability_topic": f"{mqtt.topic}/status",
            "state_class": state_class,
            "unit_of_measurement": "objects",
            "device": device,
        }
    return found


def states(mqtt: Mqtt, scene: Scene) -> dict[str, dict[str, int]]:
    """The numbers of every line and zone, by topic: by direction and class, or how many are inside by class."""
    camera = scene.camera
    found: dict[str, dict[str, int]] = {}
    for line in camera.lines:
        numbers = dict.fromkeys(line.directions, 0)
        for (name, class_name, direction), count in scene.crossings.items():
            if name == line.name:
                numbers[direction] += count
                numbers[f"{class_name} {direction}"] = count
        found[state_topic(mqtt, camera, "line", line.name)] = numbers
    for zone in camera.zones:
        inside = scene.inside(zone.name)
        found[state_topic(mqtt, camera, "zone", zone.name)] = {"inside": sum(inside.values()), **inside}
    return found


def _check_topics(kind: str, things: Sequence[Any]) -> None:
    """Raises a UsageError if two cameras, lines, zones or events would be published under one topic."""
    seen: dict[str, str] = {}
    for thing in things:
        if (first := seen.setdefault(slug(thing.name), thing.name)) != thing.name:
            raise UsageError(f"mqtt: {kind} {first!r} and {thing.name!r} would have one topic")


def _check_places(camera: Camera) -> None:
    """Raises a UsageError if two of a camera's lines, zones or events would be published under one topic."""
    for kind, things in (("lines", camera.lines), ("zones", camera.zones), ("events", camera.events)):
        _check_topics(kind, things)


class Publisher:
    """Speaks to a broker in a thread of its own, and again when it comes back.

    Topics: ``TOPIC/status`` (online, offline as last will), ``TOPIC/CAMERA/line/NAME`` and
    ``.../zone/NAME`` (JSON, retained), ``TOPIC/CAMERA/event/NAME`` (JSON).
    """

    def __init__(self, mqtt: Mqtt, scenes: Sequence[Scene], password: str, warn: Callable[[str], object]) -> None:
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise MissingExtraError("mqtt", "mqtt") from error
        self._mqtt, self._scenes, self._warn = mqtt, scenes, warn
        _check_topics("cameras", [scene.camera for scene in scenes])
        for scene in scenes:
            _check_places(scene.camera)
        self._told: dict[str, str] = {}
        self._failed = False
        self._client = client = Client(CallbackAPIVersion.VERSION2)
        client.max_queued_messages_set(QUEUED)
        client.reconnect_delay_set(1, 60)
        client.will_set(f"{mqtt.topic}/status", "offline", qos=1, retain=True)
        if mqtt.user:
            client.username_pw_set(mqtt.user, password)
        if mqtt.tls:
            client.tls_set()
        client.on_connect = self._connected
        client.on_connect_fail = lambda *_: self._fail("cannot be reached")
        client.on_disconnect = self._lost
        try:
            client.connect_async(mqtt.host, mqtt.port)
        except ValueError as error:
            raise UsageError(f"mqtt: {error}") from error
        client.loop_start()

    def update(self, scene: Scene, events: Sequence[Event]) -> None:
        """Publish what has changed, and the alarms that are to be published."""
        for topic, numbers in states(self._mqtt, scene).items():
            text = json.dumps(numbers, ensure_ascii=False)
            if self._told.get(topic) != text:
                self._told[topic] = text
                self._client.publish(topic, text, qos=1, retain=True)
        published = {rule.name for rule in scene.camera.events if rule.mqtt}
        for event in events:
            if event.rule in published:
                topic = f"{self._mqtt.topic}/{slug(event.camera)}/event/{slug(event.rule)}"
                self._client.publish(topic, json.dumps(event.to_dict(), ensure_ascii=False), qos=1)

    def change(self, before: Camera, camera: Camera) -> None:
        """Take back what was told of lines and zones that are gone, and tell of new ones."""
        _check_places(camera)
        gone = {state_topic(self._mqtt, before, "line", line.name) for line in before.lines}
        gone |= {state_topic(self._mqtt, before, "zone", zone.name) for zone in before.zones}
        now = entities(self._mqtt, camera)
        if self._mqtt.discovery:
            gone |= entities(self._mqtt, before).keys() - now.keys()
            self._announce(now)
        for topic in gone:
            self._told.pop(topic, None)  # of those that are still there the next frame tells
            self._client.publish(topic, "", qos=1, retain=True)

    def close(self) -> None:
        """Say goodbye; the states stay at the broker."""
        with suppress(RuntimeError, ValueError):  # it is away: the broker tells the last will
            self._client.publish(f"{self._mqtt.topic}/status", "offline", qos=1, retain=True).wait_for_publish(2.0)
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._fail(f"refuses ({reason})")
            return
        if self._failed:
            self._warn(f"mqtt {self._mqtt.host}: answers again")
            self._failed = False
        client.publish(f"{self._mqtt.topic}/status", "online", qos=1, retain=True)
        self._told.clear()  # the broker may have lost what it kept: the next frame tells all
        if self._mqtt.discovery:
            for scene in self._scenes:
                self._announce(entities(self._mqtt, scene.camera))

    def _announce(self, found: dict[str, dict[str, Any]]) -> None:
        for topic, message in found.items():
            self._client.publish(topic, json.dumps(message, ensure_ascii=False), qos=1, retain=True)

    def _lost(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._fail(f"connection lost ({reason})")

    def _fail(self, what: str) -> None:
        if not self._failed:
            self._failed = True
            self._warn(f"mqtt {self._mqtt.host}: {what}; tried again")
