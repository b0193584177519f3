"""The matching of all images and thresholds at once against one box at a time."""

from __future__ import annotations

import numpy as np
import pytest

from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.evaluation.kitti import KITTI_CLASSES, MatchingProblem, assign, false_alarms, matching_problems
from squeezedet.evaluation.matching import concatenate

from .scenes import NAMES

TYPES = ("Car", "Van", "Pedestrian", "Person_sitting", "Cyclist", "DontCare", "Truck")


def crowd(rng: np.random.Generator) -> tuple[list[Objects], list[Detections]]:
    """Images where boxes overlap many others, with heights at the limits and equal scores."""
    truth, detections = [], []
    for _ in range(rng.integers(1, 6)):
        n, m = rng.integers(0, 14), rng.integers(0, 25)
        corner = rng.integers(0, 80, (n, 2))
        size = np.stack([rng.integers(20, 60, n), rng.choice([24, 25, 26, 39, 40, 41], n)], 1)
        xyxy = np.hstack([corner, corner + size]).astype(np.float32)
        truncated = rng.choice([0, 0.15, 0.3, 0.5, 0.6], n).astype(np.float32)
        kinds = tuple(rng.choice(TYPES, n, p=[0.35, 0.1, 0.2, 0.05, 0.1, 0.1, 0.1]))
        truth.append(Objects(kinds, xyxy, truncated, rng.integers(0, 4, n)))
        near = xyxy[rng.integers(0, n, m)] if n else np.tile(np.float32([0, 0, 30, 30]), (m, 1))
        near = near + rng.integers(-4, 5, (m, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        score = rng.uniform(0, 1, m).round(rng.integers(1, 4)).astype(np.float32)
        detections.append(Detections(near.astype(np.float32), score, rng.choice(3, m, p=[0.6, 0.3, 0.1]), NAMES))
    return truth, detections


def one_by_one(problem: MatchingProblem, threshold: float | None) -> list[int]:
    """The rule as it is told: each labelled box in turn looks at every detection."""
    free = set(range(len(problem.det_score)))
    partners: dict[int, list[tuple[int, float]]] = {}
    for g, d, overlap in zip(problem.pair_gt, problem.pair_det, problem.pair_iou, strict=True):
        partners.setdefault(int(g), []).append((int(d), float(overlap)))
    taken = []
    for g in range(len(problem.gt_valid)):
        usable = [(d, o) for d, o in sorted(partners.get(g, [])) if d in free]
        if threshold is None:
            best = max(usable, key=lambda p: problem.det_score[p[0]], default=None)
        else:
            usable = [p for p in usable if problem.det_score[p[0]] >= threshold]
            counting = [p for p in usable if not problem.det_ignored[p[0]]]
            best = max(counting, key=lambda p: p[1], default=usable[0] if usable else None)
        taken.append(best[0] if best else -1)
        free.discard(taken[-1])
    return taken


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rules", ["paper", "current"])
def test_all_at_once_is_one_by_one(seed: int, rules: str) -> None:
    scene = concatenate(*crowd(np.random.default_rng(seed)))
    thresholds = np.array([0.9, 0.5, 0.2, 0.0])
    compared = 0
    for _, _, problem in matching_problems(scene, rules, KITTI_CLASSES):
        assert assign(problem)[:, 0].tolist() == one_by_one(problem, None)
        taken = assign(problem, thresholds)
        alarms = false_alarms(problem, taken, thresholds)
        for k, threshold in enumerate(thresholds):
            expected = one_by_one(problem, threshold)
            assert taken[:, k].tolist() == expected
            blamed = [
                d
                for d, score in enumerate(problem.det_score)
                if score >= threshold
                and d not in expected
                and not problem.det_ignored[d]
                and not problem.det_excused[d]
            ]
            assert np.flatnonzero(alarms[:, k]).tolist() == blamed
        compared += 1
    assert compared
