"""Crossings by the shipped model: of cars whose ways are drawn, and on a street that was looked at."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squeezedet.media.images import Frame, FrameTime, read_image
from squeezedet.media.sources import frames, locate
from squeezedet.runtime.bundle import WEIGHTS
from squeezedet.runtime.detector import FrameStream, load
from squeezedet.watch.config import Camera, Line
from squeezedet.watch.counting import Scene


@pytest.mark.slow
def test_drawn_ways_are_counted_without_error() -> None:
    """The nearest car of the demo picture, three times on an empty road: two cross, one turns back."""
    detector = load("street")
    demo = Image.fromarray(read_image(WEIGHTS / "demo.jpg").pixels)
    found = max((box for box in detector(demo) if box.name == "car"), key=lambda box: box.xyxy[3])
    left, top, right, bottom = found.xyxy
    margin = 12
    car = demo.crop((round(left) - margin, round(top) - margin, round(right) + margin, round(bottom) + margin))
    car = car.resize((120, round(120 * car.height / car.width)))
    scene = Scene(Camera(name="road", source="-", lines=(Line(name="gate", points=((624, 384), (624, 0))),)))
    stream = FrameStream(detector, track=True)
    steps = 24
    for number in range(steps):
        share = number / (steps - 1)
        road = Image.new("RGB", (1248, 384), (120, 120, 118))
        road.paste(car, (round(300 + 500 * share), 40))  # to the right
        road.paste(car, (round(850 - 500 * share), 150))  # to the left
        road.paste(car, (round(200 + 300 * (1 - abs(2 * share - 1))), 270))  # and back again
        scene.update(stream.detect(Frame(np.asarray(road), "road", moment=FrameTime(number / 10, number))))
    assert scene.crossings == Counter({("gate", "car", "right"): 1, ("gate", "car", "left"): 1})


@pytest.mark.slow
@pytest.mark.shared
def test_a_street_that_was_looked_at(shared: Path) -> None:
    """KITTI's drive 0052: the silver car, left of one line from the start, passes the other; the red truck is no class.
    The lines end below the cars far behind."""
    lines = [Line(name=str(x), points=((x, 375), (x, 210))) for x in (150, 250)]
    scene = Scene(Camera(name="street", source="-", lines=tuple(lines)))
    stream = FrameStream(load("street"), track=True)
    for number, frame in enumerate(frames(locate([str(shared / "data" / "sequence")]))):
        assert isinstance(frame, Frame)
        scene.update(stream.detect(Frame(frame.pixels, "street", moment=FrameTime(number / 10, number))))
    assert number == 77
    assert scene.crossings == Counter({("150", "car", "left"): 1})
