"""Recall against the number of boxes."""

from __future__ import annotations

import numpy as np

from squeezedet.evaluation.recall import NEVER, first_ranks, recall_curve

from .scenes import NAMES, labels


def test_the_curve_counts_the_first_box_that_reaches_each_object() -> None:
    truth = labels(("Car", (0, 0, 100, 100)), ("Pedestrian", (200, 0, 240, 100)), ("Van", (0, 0, 50, 50)))
    boxes = np.tile(np.float32([500, 500, 510, 510]), (40, 1))
    score = np.linspace(1, 0, 40)
    class_id = np.zeros(40, np.int64)
    boxes[9] = 0, 0, 100, 100
    boxes[7] = 200, 0, 240, 100
    boxes[20], class_id[20] = (200, 0, 240, 100), 1
    ranks = first_ranks(truth, boxes, score, class_id, names=NAMES)
    assert ranks.same_class.tolist() == [9, 20]
    assert ranks.any_class.tolist() == [9, 7]
    curve = recall_curve([ranks])
    assert curve.boxes == (8, 16, 32, 40)
    assert curve.same_class == (0.0, 0.5, 1.0, 1.0)
    assert curve.any_class == (0.5, 1.0, 1.0, 1.0)
    assert curve.objects == 2


def test_an_image_without_objects_or_boxes() -> None:
    none = np.empty((0, 4), np.float32)
    empty = first_ranks(labels(), none, none[:, 0], np.empty(0, np.int64), names=NAMES)
    missed = first_ranks(labels(("Car", (0, 0, 9, 9))), none, none[:, 0], np.empty(0, np.int64), names=NAMES)
    assert missed.same_class.tolist() == [NEVER]
    assert recall_curve([empty, missed]).any_class == (0.0,)
