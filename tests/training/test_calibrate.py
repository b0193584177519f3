"""The score that is shown means the same whatever the network's own confidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from squeezedet.data.sample import Objects, Sample
from squeezedet.detections import Detections
from squeezedet.models.squeezedet import ConvDet
from squeezedet.training.validate import best_threshold, shift_confidence

NAMES = ("car", "pedestrian", "cyclist")


def test_best_threshold_lies_between_good_and_bad() -> None:
    """Twenty cars found at 0.7 to 0.9; forty boxes of nothing at 0.2 to 0.6."""
    car = np.array([[100, 100, 160, 140]], np.float32)
    samples, found = [], []
    for i in range(20):
        objects = Objects(("Car",), car, np.zeros(1, np.float32), np.zeros(1, np.int64))
        samples.append(Sample(str(i), Path("none"), objects))
        xyxy = np.concatenate([car, car + 300, car + 600])
        score = np.array([0.7 + 0.01 * i, 0.2 + 0.02 * i, 0.4 + 0.01 * i], np.float32)
        found.append(Detections(xyxy, score, np.zeros(3, np.int64), NAMES))
    assert 0.58 < best_threshold(samples, found, NAMES) <= 0.7


@torch.inference_mode()
def test_shift_turns_one_score_into_the_other_and_keeps_the_order() -> None:
    torch.manual_seed(0)
    detector = ConvDet().eval()
    with torch.no_grad():
        detector.convdet.weight.mul_(3e4)
        detector.convdet.bias[:27].view(9, 3)[:, 0] = 50.0  # surely cars: score = confidence
        detector.convdet.bias[27:36] = torch.linspace(-3, 3, 9)
    images = torch.randint(0, 256, (1, 3, 64, 96))
    before = detector.decode(detector(images))[1][0]
    shift_confidence(detector, threshold=0.7, shown=0.4)
    after = detector.decode(detector(images))[1][0]
    assert torch.equal(before.argsort(stable=True), after.argsort(stable=True))
    assert ((before >= 0.7) == (after >= 0.4)).float().mean() > 0.99
    assert before.min() < 0.3
    assert before.max() > 0.8


def test_a_threshold_of_its_own_shifts_nothing() -> None:
    assert shift_confidence(ConvDet(), 0.4) == pytest.approx(0)
