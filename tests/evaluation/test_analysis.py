"""Recall against boxes, the error analysis and the confusion of classes."""

from __future__ import annotations

import numpy as np
import pytest

from squeezedet.detections import Detections
from squeezedet.evaluation.analysis import KINDS, NEVER, analyze, confuse, first_ranks, recall_curve

from .scenes import NAMES, found, labels, shift

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
