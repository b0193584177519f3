"""Recall against boxes, the error analysis, the confusion of classes and what errors cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from squeezedet.detections import Detections
from squeezedet.evaluation.analysis import (
    KINDS,
    NEVER,
    TIDE_KINDS,
    analyze,
    confuse,
    error_costs,
    first_ranks,
    recall_curve,
)

from .scenes import NAMES, found, labels, perfect, scenes, shift

CAR = (100.0, 100.0, 200.0, 160.0)
LEFT, RIGHT = shift(CAR, -400), shift(CAR, 400)


def test_the_curve_counts_the_first_box_that_reaches_each_object() -> None:
    truth = labels(("Car", (0, 0, 100, 100)), ("Pedestrian", (200, 0, 240, 100)), ("Van", (0, 0, 50, 50)))
    boxes = np.tile(np.float32([500, 500, 510, 510]), (40, 1))
    score = np.linspace(1, 0, 40)
    class_id = np.zeros(40, np.int64)
    boxes[9] = 0, 0, 100, 100
    boxes[7] = 200, 0, 240, 100
    boxes[20], class_id[20] = (200, 0, 240, 100), 1
    ranks = first_ranks(truth, Detections(boxes, score, class_id, NAMES))
    assert ranks.same_class.tolist() == [9, 20]
    assert ranks.any_class.tolist() == [9, 7]
    curve = recall_curve([ranks])
    assert curve.boxes == (8, 16, 32, 40)
    assert curve.same_class == (0.0, 0.5, 1.0, 1.0)
    assert curve.any_class == (0.5, 1.0, 1.0, 1.0)
    assert curve.objects == 2


def test_an_image_without_objects_or_boxes() -> None:
    empty = first_ranks(labels(), found())
    missed = first_ranks(labels(("Car", (0, 0, 9, 9))), found())
    assert missed.same_class.tolist() == [NEVER]
    assert recall_curve([empty, missed]).any_class == (0.0,)


def test_every_kind_of_the_original() -> None:
    truth = labels(*(("Car", shift(CAR, 0, 100 * k)) for k in range(6)))
    detections = found(
        ("car", 0.9, CAR),
        ("car", 0.8, shift(CAR, 5)),
        ("car", 0.7, shift(CAR, 60, 100)),
        ("cyclist", 0.6, shift(CAR, 0, 200)),
        ("car", 0.5, RIGHT),
        ("car", 0.4, shift(CAR, 0, 300)),
        ("car", 0.3, shift(CAR, 0, 400)),
    )
    result = analyze([truth, labels()], [detections, found(("car", 1, CAR))], NAMES)
    # Six objects, so six detections are looked at; the image without objects is skipped.
    assert {kind: result.count(kind) for kind in KINDS} == {
        "correct": 2,
        "repeated": 1,
        "localization": 1,
        "classification": 1,
        "background": 1,
        "missed": 4,
    }
    assert (result.detections, result.objects) == (6, 6)
    (wrong,) = result.worst("classification", 5)
    assert (wrong.name, wrong.truth, wrong.overlap) == ("cyclist", "car", 1)


@pytest.mark.parametrize(("width", "kind"), [(50, "correct"), (49, "localization"), (10, "background")])
def test_the_limits(width: float, kind: str) -> None:
    box = (100.0, 100.0, 100.0 + width, 160.0)
    assert analyze([labels(("Car", CAR))], [found(("car", 0.9, box))], NAMES).cases[0].kind == kind


def test_nothing_found_and_nothing_there() -> None:
    result = analyze([labels(("Car", CAR))], [found()], NAMES)
    assert (result.detections, result.objects, result.count("missed")) == (0, 1, 1)
    nothing = analyze([labels()], [found()], NAMES)
    assert (nothing.detections, nothing.objects, nothing.cases) == (0, 0, ())


def test_the_confusion_matches_one_to_one_at_a_score() -> None:
    truth = labels(("Car", CAR), ("Pedestrian", LEFT))
    detections = found(("car", 0.9, CAR), ("car", 0.8, CAR), ("cyclist", 0.7, LEFT), ("pedestrian", 0.1, LEFT))
    confusion = confuse([truth], [detections], NAMES, score=0.7)
    assert confusion[0].tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert confuse([truth], [found()], NAMES, 0.5)[0, :, 3].tolist() == [1, 1, 0, 0]


def test_the_cost_of_each_kind() -> None:
    truth = labels(("Car", CAR), ("Car", RIGHT), ("Van", LEFT))
    clean = (("car", 0.5, CAR), ("car", 0.4, RIGHT))
    for kind, extra, cost in [
        ("background", ("car", 0.9, shift(CAR, 0, 300)), 1 / 3),
        ("repeated", ("car", 0.45, CAR), 1 / 6),
    ]:
        costs = error_costs([truth], [found(*clean, extra)])
        assert {k: n for k, n in costs.counts.items() if n} == {kind: 1}
        assert costs.costs[kind] == pytest.approx(cost)
        assert sum(costs.costs.values()) == pytest.approx(cost)
    on_van = error_costs([truth], [found(*clean, ("car", 0.9, LEFT))])
    assert (on_van.ap, sum(on_van.counts.values())) == (1, 0)


def test_mending_turns_a_poor_box_or_a_wrong_class_into_a_hit() -> None:
    truth = labels(("Car", CAR), ("Car", RIGHT))
    poor = error_costs([truth], [found(("car", 0.9, CAR), ("car", 0.8, shift(RIGHT, 30)))])
    assert (poor.ap, poor.counts["localization"]) == (0.5, 1)
    assert poor.costs["localization"] == pytest.approx(0.5)
    wrong = error_costs([truth], [found(("car", 0.9, CAR), ("cyclist", 0.8, RIGHT))])
    assert (wrong.counts["classification"], wrong.counts["missed"]) == (1, 0)
    assert wrong.costs["classification"] == pytest.approx(0.5)
    missed = error_costs([truth], [found(("car", 0.9, CAR))])
    assert (missed.counts["missed"], missed.costs["missed"]) == (1, 0.5)


@given(scenes())
def test_mending_costs_nothing_and_nothing_is_counted_twice(scene) -> None:
    truth, detections = scene
    result = error_costs(truth, detections)
    assert 0 <= result.ap <= 1
    for kind in TIDE_KINDS:
        assert result.costs[kind] >= -1e-12
        assert result.ap + result.costs[kind] <= 1 + 1e-12
    wrong = sum(n for kind, n in result.counts.items() if kind != "missed")
    assert wrong <= sum(len(d) for d in detections)
    ideal = error_costs(truth, [perfect(o) for o in truth])
    assert ideal.counts["background"] == ideal.counts["both"] == 0
