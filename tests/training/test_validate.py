"""Validation by each protocol: a planted answer is judged as the protocol says."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from squeezedet.data.sample import ClassMap, Objects, Sample
from squeezedet.detections import Detections
from squeezedet.training.recipe import Protocol
from squeezedet.training.validate import MEASURES, evaluate_detections

TRAMS = ClassMap(("tram", "bus"), aliases=(("Streetcar", "tram"),), regions=("DontCare",))


def sample(types: tuple[str, ...], boxes: list[list[float]], ignored: list[bool]) -> Sample:
    n = len(types)
    objects = Objects(
        types,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.zeros(n, np.float32),
        np.zeros(n, np.int64),
        np.array(ignored, dtype=bool),
    )
    return Sample("a", Path("a.png"), objects)


def found(boxes: list[list[float]], class_id: list[int]) -> Detections:
    score = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(xyxy, score, np.array(class_id, np.int64), TRAMS.names)


TRAM, BUS, OTHER = [10.0, 10, 110, 110], [200.0, 10, 300, 110], [400.0, 10, 500, 110]


@pytest.mark.parametrize("protocol", ["voc", "coco"])
def test_an_alias_counts_and_what_is_ignored_does_not(protocol: Protocol) -> None:
    if protocol == "coco":
        pytest.importorskip("faster_coco_eval")
    truth = sample(("Streetcar", "BUS", "DontCare"), [TRAM, BUS, OTHER], [False, True, False])
    answer = evaluate_detections([truth], [found([OTHER, BUS, TRAM], [0, 1, 0])], TRAMS, protocol)
    assert answer.ap["tram"] == pytest.approx(1.0)  # the region before it is no false alarm
    assert answer.ap["bus"] is None  # the only bus is ignored: there is nothing to find
    assert answer.fitness == pytest.approx(1.0)
    wrong = evaluate_detections([truth], [found([BUS, TRAM], [0, 0])], TRAMS, protocol)
    assert wrong.ap["tram"] == pytest.approx(0.5, abs=0.01)  # ignored as a bus, not as a tram


def test_nothing_found_is_nothing_for_every_protocol() -> None:
    truth = sample(("tram",), [TRAM], [False])
    for protocol in get_args(Protocol):
        if protocol == "coco":
            pytest.importorskip("faster_coco_eval")
        assert evaluate_detections([truth], [found([], [])], TRAMS, protocol).fitness == 0.0
        assert protocol in MEASURES
