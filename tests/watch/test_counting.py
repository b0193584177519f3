"""Crossings, stays, counts and alarms of boxes that move as the test says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.detections import Detections
from squeezedet.watch.config import Camera, Line, Rule, Zone
from squeezedet.watch.counting import Event, Scene

NAMES = ("car", "pedestrian", "cyclist")
START = datetime(2026, 5, 1, 11, 59, 30, tzinfo=timezone(timedelta(hours=2)))


def at(feet: Mapping[int, tuple[float, float, int]], time_s: float, wall: datetime | None = None) -> Detections:
    """Boxes by track: where the middle of the lower edge is, and the class."""
    xyxy = [(x - 5, y - 10, x + 5, y) for x, y, _ in feet.values()]
    return Detections(
        np.array(xyxy, np.float32).reshape(-1, 4),
        np.ones(len(feet), np.float32),
        np.array([kind for _, _, kind in feet.values()], np.int64),
        NAMES,
        width=200,
        height=100,
        time_s=time_s,
        wall_time=wall,
        track_id=np.array(list(feet), np.int64),
    )


LINE = Line(name="gate", points=((100, 100), (100, 0)))  # right of it is to the right
ZONE = Zone(name="yard", points=((50, 0), (150, 0), (150, 100), (50, 100)))


def scene(*rules: Rule) -> Scene:
    return Scene(Camera(name="street", source="0", lines=(LINE,), zones=(ZONE,), events=rules))


def walk(watched: Scene, xs: Iterable[float], kind: int = 0, track: int = 1, step_s: float = 0.1) -> list[Event]:
    events = []
    for number, x in enumerate(xs):
        events += watched.update(at({track: (x, 50, kind)}, number * step_s))
    return events


def told(events: list[Event], *kinds: str) -> list[tuple]:
    return [(e.kind, e.place, e.class_name, e.direction) for e in events if e.kind in kinds]


def test_one_crossing_to_each_side() -> None:
    assert told(walk(scene(), range(80, 120, 7)), "crossed") == [("crossed", "gate", "car", "right")]
    assert told(walk(scene(), range(120, 80, -7), kind=1), "crossed") == [("crossed", "gate", "pedestrian", "left")]


def test_a_box_that_trembles_on_the_line_counts_once() -> None:
    watched = scene()
    walk(watched, [90, 99, 100, 101, 100, 99, 101, 99, 110])
    assert dict(watched.crossings) == {("gate", "car", "right"): 1}


@given(st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=12), min_size=1, max_size=6))
def test_every_track_counts_at_most_once_and_as_its_way_says(ways: list[list[int]]) -> None:
    watched = scene()
    for number in range(12):
        feet = {track: (float(way[number]), 50.0, 0) for track, way in enumerate(ways, 1) if number < len(way)}
        watched.update(at(feet, number / 10))
    expected: Counter = Counter()
    for way in ways:
        sides = [x > 100 for x in way if x != 100]
        first = next((b for a, b in pairwise(sides) if a != b), None)
        if first is not None:
            expected["gate", "car", "right" if first else "left"] += 1
    assert watched.crossings == expected


@given(st.lists(st.integers(0, 200), min_size=1, max_size=40))
def test_who_enters_has_left_or_is_still_inside(xs: list[int]) -> None:
    watched = scene()
    events = walk(watched, [float(x) for x in xs], step_s=0.3)
    entered, left = (sum(e.kind == kind for e in events) for kind in ("entered", "left"))
    assert entered - left == sum(watched.inside("yard").values()) in (0, 1)
    assert all(e.seconds is not None and e.seconds >= 0 for e in events if e.kind == "left")


def test_time_in_a_zone_ends_where_it_was_left() -> None:
    events = walk(scene(), [0, 60, 60, 60, 200, 200, 200, 200, 200, 200, 200, 200])
    assert told(events, "entered", "left") == [("entered", "yard", "car", ""), ("left", "yard", "car", "")]
    assert events[-1].seconds == pytest.approx(0.3)


def test_a_box_that_trembles_on_the_border_enters_once() -> None:
    events = walk(scene(), [40, 51, 49, 51, 49, 51, 60])
    assert len(told(events, "entered", "left")) == 1


def test_a_track_that_ends_inside_has_left_when_it_was_seen_last() -> None:
    watched = scene()
    walk(watched, [60, 61, 62])
    events = []
    for number in range(3, 40):
        assert sum(watched.inside("yard").values()) == (number < 34)
        events += watched.update(at({}, number / 10))
    assert [(e.kind, e.seconds) for e in events] == [("left", pytest.approx(0.2))]


def test_lines_and_zones_that_change_lose_no_counts_of_others() -> None:
    watched = scene()
    walk(watched, range(60, 110, 7))
    other = Line(name="other", points=((90, 100), (90, 0)))
    watched.change(replace(watched.camera, lines=(LINE, other)))
    assert dict(watched.crossings) == {("gate", "car", "right"): 1}
    assert watched.inside("yard") == Counter(car=1)
    assert told(walk(watched, range(110, 60, -7)), "crossed", "entered") == [("crossed", "other", "car", "left")]
    watched.change(replace(watched.camera, lines=(replace(LINE, points=((80, 100), (80, 0))),), zones=()))
    assert (dict(watched.crossings), dict(watched.entries)) == ({}, {})
    assert told(walk(watched, range(60, 110, 7)), "crossed", "left") == [("crossed", "gate", "car", "right")]


def test_minutes_and_hours_by_the_clock() -> None:
    watched = scene()
    events = []
    for number in range(0, 240):  # 4 minutes: 11:59:30 to 12:03:30
        feet = {number // 10: (90.0 if number % 10 < 5 else 110.0, 50.0, 0)}
        events += watched.update(at(feet, float(number), START + timedelta(seconds=number)))
    events += watched.end()
    minutes = [(f"{e.wall_time:%H:%M}", e.count) for e in events if e.kind == "minute" and e.place == "gate"]
    assert minutes == [("11:59", 3), ("12:00", 6), ("12:01", 6), ("12:02", 6), ("12:03", 3)]
    hours = [(f"{e.wall_time:%H:%M%z}", e.count) for e in events if e.kind == "hour" and e.place == "gate"]
    assert hours == [("11:00+0200", 3), ("12:00+0200", 21)]
    assert [e.count for e in events if e.kind == "total"] == [24, 24]
    assert not watched.clock_jump_s


def test_minutes_of_a_file_are_the_videos() -> None:
    watched = scene()
    events = walk(watched, [90, 110, 111, 112], step_s=25.0) + watched.end()
    assert [(e.time_s, e.count) for e in events if e.kind == "minute" and e.place == "gate"] == [(0.0, 1)]


def test_a_clock_that_jumps_is_told_and_loses_nothing() -> None:
    watched = scene()
    events = []
    jumps = []
    for number in range(40):
        wall = START + timedelta(seconds=number - (3600 if number >= 20 else 0))
        events += watched.update(at({number // 10: (90.0 if number % 10 < 5 else 110.0, 50.0, 0)}, float(number), wall))
        jumps.append(watched.clock_jump_s)
    events += watched.end()
    assert [jump for jump in jumps if jump] == [-3600]
    assert sum(e.count or 0 for e in events if e.kind == "minute" and e.place == "gate") == 4


# ------------------------------------------------------------------ alarms


def alarms(watched: Scene, frames: list[dict[int, tuple[float, float, int]]], step_s: float = 1.0) -> list[Event]:
    events = [e for number, feet in enumerate(frames) for e in watched.update(at(feet, number * step_s))]
    return [e for e in events if e.kind == "alarm"]


def test_crossed_in_one_direction_by_one_class() -> None:
    rule = Rule(name="in", when="crossed", line="gate", direction="right", classes=("car",))
    frames = [{1: (90, 50, 0), 2: (110, 50, 0), 3: (90, 50, 1)}, {1: (110, 50, 0), 2: (90, 50, 0), 3: (110, 50, 1)}]
    found = alarms(scene(rule), frames)
    assert [(e.rule, e.track_id, e.direction) for e in found] == [("in", 1, "right")]


def test_more_than_some_inside_is_told_when_it_comes_true() -> None:
    rule = Rule(name="crowd", when="more_than", zone="yard", count=1)
    one, two = {1: (60, 50, 0)}, {1: (60, 50, 0), 2: (70, 50, 1)}
    gone = {1: (60, 50, 0), 2: (190, 50, 1)}
    found = alarms(scene(rule), [one, two, two, gone, gone, two])
    assert [(e.time_s, e.count) for e in found] == [(1.0, 2), (5.0, 2)]


def test_longer_than_is_told_once_for_each_stay() -> None:
    rule = Rule(name="stands", when="longer_than", zone="yard", seconds=2.5)
    found = alarms(scene(rule), [{1: (60, 50, 0)}] * 6)
    assert [(e.time_s, e.track_id, e.seconds) for e in found] == [(3.0, 1, 3.0)]


def test_nothing_for_some_time_is_told_once_until_something_comes() -> None:
    rule = Rule(name="quiet", when="nothing_for", seconds=2)
    found = alarms(scene(rule), [{1: (0, 50, 0)}, {}, {}, {}, {1: (0, 50, 0)}, {}, {}, {}])
    assert [(e.time_s, e.seconds) for e in found] == [(2.0, 2.0), (6.0, 2.0)]


def test_a_pause_between_alarms() -> None:
    rule = Rule(name="in", when="entered", zone="yard", pause_s=10)
    frames = [{n: (60, 50, 0)} for n in range(1, 15)]
    assert [e.time_s for e in alarms(scene(rule), frames)] == [0.0, 10.0]
