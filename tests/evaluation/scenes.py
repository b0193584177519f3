"""Small scenes by hand and by hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from squeezedet.data.sample import Objects
from squeezedet.detections import Detections

NAMES = ("car", "pedestrian", "cyclist")
Box = tuple[float, float, float, float]


def labels(*boxes: tuple[str, Box], truncated: float = 0, occluded: int = 0) -> Objects:
    n = len(boxes)
    return Objects(
        tuple(name for name, _ in boxes),
        np.array([box for _, box in boxes], np.float32).reshape(n, 4),
        np.full(n, truncated, np.float32),
        np.full(n, occluded, np.int64),
    )


def found(*boxes: tuple[str, float, Box], names: tuple[str, ...] = NAMES) -> Detections:
    return Detections(
        np.array([box for _, _, box in boxes], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in boxes], np.float32),
        np.array([names.index(name) for name, _, _ in boxes], np.int64),
        names,
    )


def perfect(objects: Objects, score: float = 0.5) -> Detections:
    """Exactly the labelled objects of the classes."""
    boxes = zip(objects.types, objects.xyxy.tolist(), strict=True)
    return found(*((t.lower(), score, tuple(b)) for t, b in boxes if t.lower() in NAMES))


def shift(box: Box, dx: float, dy: float = 0) -> Box:
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(st.integers(0, 300)), draw(st.integers(0, 200))
    return x, y, x + draw(st.integers(20, 120)), y + draw(st.integers(20, 120))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Objects], list[Detections]]:
    """One to four images; detections near the objects or anywhere, no two of one score."""
    kinds = st.sampled_from(["Car", "Van", "Pedestrian", "Person_sitting", "Cyclist", "DontCare"])
    truth, detections = [], []
    number = draw(st.integers(1, 4))
    scores = iter(draw(st.permutations([k / 100 for k in range(1, 60)])))
    for _ in range(number):
        objects = draw(st.lists(st.tuples(kinds, boxes()), max_size=6))
        truth.append(labels(*objects))
        near = [
            (draw(st.sampled_from(NAMES)), next(scores), shift(box, draw(st.integers(-9, 9))))
            for _, box in objects
            if draw(st.booleans())
        ]
        anywhere = draw(st.lists(st.tuples(st.sampled_from(NAMES), boxes()), max_size=4))
        detections.append(found(*near, *((name, next(scores), box) for name, box in anywhere)))
    return truth, detections
