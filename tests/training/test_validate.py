"""Validation by each protocol: a planted answer is judged as the protocol says."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from squeezedet.data.sample import ClassMap, Objects, Sample
from squeezedet.detections import Detections
from squeezedet.exporting.bundle import Exported, bundle_detector, export
from squeezedet.models.squeezedet import ConvDet
from squeezedet.runtime import bundle
from squeezedet.runtime.engines import OnnxRuntimeEngine
from squeezedet.training import checkpoint
from squeezedet.training.checkpoint import load_detector
from squeezedet.training.recipe import Protocol
from squeezedet.training.validate import MEASURES, best_thresholds, evaluate_detections, score_odds

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


# ------------------------------------------------------------ thresholds of scores

NAMES = ("car", "pedestrian", "cyclist")


def test_best_threshold_lies_between_good_and_bad() -> None:
    """Twenty cars found at 0.7 to 0.9; forty boxes of nothing at 0.2 to 0.6; no other class has objects."""
    car = np.array([[100, 100, 160, 140]], np.float32)
    samples, found = [], []
    for i in range(20):
        objects = Objects(("Car",), car, np.zeros(1, np.float32), np.zeros(1, np.int64))
        samples.append(Sample(str(i), Path("none"), objects))
        xyxy = np.concatenate([car, car + 300, car + 600])
        score = np.array([0.7 + 0.01 * i, 0.2 + 0.02 * i, 0.4 + 0.01 * i], np.float32)
        found.append(Detections(xyxy, score, np.zeros(3, np.int64), NAMES))
    car_threshold, *others = best_thresholds(samples, found, NAMES)
    assert 0.58 < car_threshold <= 0.7
    assert others == [car_threshold] * 2


@torch.inference_mode()
def test_thresholds_of_all_classes_become_one_and_the_order_stays() -> None:
    torch.manual_seed(0)
    detector = ConvDet().eval()
    with torch.no_grad():
        detector.convdet.weight.mul_(3e4)
        detector.convdet.bias[:27] = torch.randn(27) * 3
        detector.convdet.bias[27:36] = torch.linspace(-3, 3, 9)
    images = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    _, before, class_id = Exported(detector)(images)
    thresholds = torch.tensor([0.3, 0.2, 0.25])
    detector.score_odds = score_odds(thresholds.tolist())
    _, after, same = Exported(detector)(images)
    assert torch.equal(class_id, same)
    assert torch.equal(before >= thresholds[class_id], after >= 0.4 - 1e-6)
    for c in range(3):
        assert torch.equal(before[class_id == c].argsort(stable=True), after[class_id == c].argsort(stable=True))
        assert (before[class_id == c] > thresholds[c]).any()


def test_a_threshold_of_its_own_changes_nothing() -> None:
    assert score_odds([0.4, 0.4]) == (1, 1)


@pytest.mark.slow
def test_a_calibrated_bundle_keeps_its_scores_through_another_export(tmp_path: Path) -> None:
    detector = ConvDet()
    detector.score_odds = (2.0, 0.5, 1.0)
    training = {"config": checkpoint.describe(detector), "score_odds": [2.0, 0.5, 1.0]}
    made = bundle_detector(detector, "mine", training=training)
    bundle.write(tmp_path / "mine.bundle", made)
    again = load_detector(str(tmp_path / "mine.bundle"))
    assert again.score_odds == detector.score_odds
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    score = [OnnxRuntimeEngine(g).run(pixels).score for g in (made.graph, export(again, (96, 64)))]
    np.testing.assert_allclose(score[0], score[1], atol=1e-6)
