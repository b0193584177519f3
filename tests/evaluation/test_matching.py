"""Bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from squeezedet.evaluation import kitti, voc
from squeezedet.evaluation.kitti import KITTI_CLASSES, evaluate, evaluate_problem, matching_problems
from squeezedet.evaluation.matching import concatenate

from .scenes import found, labels, perfect, shift

CAR = (100.0, 100.0, 200.0, 160.0)


def street(images: int) -> tuple[list, list]:
    """Images of three cars; in every third one only a false box is found."""
    rng = np.random.default_rng(1)
    cars = labels(*(("Car", shift(CAR, 0, 100 * k)) for k in range(3)))
    detections = []
    for i in range(images):
        score = float(rng.uniform(0.1, 0.9))
        wrong = found(("car", score, shift(CAR, 400)))
        detections.append(wrong if i % 3 == 0 else perfect(cars, score))
    return [cars] * images, detections


def test_a_weight_is_the_same_as_so_many_copies() -> None:
    truth, detections = street(7)
    weights = np.array([2, 0, 1, 3, 1, 0, 2])
    index = np.repeat(np.arange(7), weights)
    copies = evaluate([truth[i] for i in index], [detections[i] for i in index])
    for rule, level, problem in matching_problems(concatenate(truth, detections), "current", KITTI_CLASSES):
        weighted = evaluate_problem(problem, weights)
        expected = copies.results[rule.name][level.name]
        assert weighted.objects == expected.objects
        np.testing.assert_allclose(weighted.precision41, expected.precision41, atol=1e-12)


def test_the_interval_holds_the_figure_and_narrows_with_more_images() -> None:
    widths = []
    for images in (20, 200):
        truth, detections = street(images)
        result = evaluate(truth, detections)
        intervals = kitti.intervals(truth, detections, draws=200)
        low, high = intervals.bounds["car/moderate/ap40"]
        assert low < result.results["car"]["moderate"].ap40 < high
        assert intervals.bounds["map40"][0] < result.map40 < intervals.bounds["map40"][1]
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert intervals == kitti.intervals(truth, detections, draws=200)


def test_voc_intervals() -> None:
    truth, detections = street(30)
    boxes = [voc.truth_of(o, ["car"]) for o in truth]

    low, high = voc.intervals(boxes, detections, ["car"], draws=100).bounds["car/area"]
    assert low < voc.evaluate(boxes, detections, ["car"]).map_area < high
    assert high - low == pytest.approx(0.35, abs=0.2)
