"""How far a result depends on the images it was measured on: bootstrap over images.

Images are drawn with replacement, as many as there are, and evaluated again; the 2.5th
and 97.5th percentiles of many such draws are the interval (Efron's percentile method).
A class without an object in any image is in no mean; one without an object in a draw alone counts
as its protocol says there: 0 by KITTI's, left out by VOC's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.evaluation.kitti import (
    KITTI_CLASSES,
    KITTI_LEVELS,
    ClassRule,
    Rules,
    count,
    evaluate_problems,
    matching_problems,
)
from squeezedet.evaluation.matching import concatenate
from squeezedet.evaluation.voc import VocResult

PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Intervals:
    """95% intervals.

    Attributes:
        draws: number of draws.
        bounds: figure ("car/easy/ap40", "map40", ...) -> lower and upper bound.
    """

    draws: int
    bounds: dict[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return {"draws": self.draws, "level": 0.95, "bounds": {name: list(pair) for name, pair in self.bounds.items()}}


def kitti_intervals(
    ground_truth: Sequence[Objects],
    detections: Sequence[Detections],
    rules: Rules,
    *,
    classes: Sequence[ClassRule] = KITTI_CLASSES,
    draws: int = 1000,
    seed: int = 0,
) -> Intervals:
    """Intervals of every AP and of both means of the KITTI protocol.

    Boxes are compared once; a draw only changes how often each image counts.
    """
    scene = concatenate(ground_truth, detections)
    problems = list(matching_problems(scene, rules, classes, KITTI_LEVELS))
    _, objects = count(scene, rules, classes, KITTI_LEVELS)
    counted = [name for name, number in objects.items() if number]

    def figures(weights: NDArray[np.int64]) -> dict[str, float]:
        found: dict[str, float] = {}
        for rule, level, problem in problems:
            result = evaluate_problems(problem, weights)
            found |= {f"{rule.name}/{level.name}/ap11": result.ap11, f"{rule.name}/{level.name}/ap40": result.ap40}
        for ap in ("ap11", "ap40"):
            cells = [found.get(f"{name}/{level.name}/{ap}", 0.0) for name in counted for level in KITTI_LEVELS]
            found[f"m{ap}"] = float(np.mean(cells)) if cells else 0.0
        return found

    return _intervals(figures, len(ground_truth), draws, seed)


def voc_intervals(
    evaluate_images: Callable[[Sequence[int]], VocResult], images: int, draws: int = 1000, seed: int = 0
) -> Intervals:
    """Intervals of both APs of each class, and of their means, of the VOC protocol.

    Args:
        evaluate_images: evaluates the images of the given indices, which may repeat.
        images: number of images.
        draws: number of draws.
        seed: of the draws.
    """

    def figures(weights: NDArray[np.int64]) -> dict[str, float]:
        result = evaluate_images(np.repeat(np.arange(images), weights).tolist())
        found = {"map11": result.map11, "map_area": result.map_area}
        for name, curve in result.results.items():
            found[f"{name}/voc07_11point"] = curve.ap11 if curve else 0.0
            found[f"{name}/area"] = curve.ap_area if curve else 0.0
        return found

    return _intervals(figures, images, draws, seed)


def _intervals(
    figures: Callable[[NDArray[np.int64]], Mapping[str, float]], images: int, draws: int, seed: int
) -> Intervals:
    """Intervals of the figures of (images,) numbers that say how often each image is drawn."""
    share = np.full(images, 1 / max(images, 1))
    weights = np.random.default_rng(seed).multinomial(images, share, size=draws)
    found = [figures(weight) for weight in weights]
    bounds = {name: np.percentile([one[name] for one in found], PERCENTILES).tolist() for name in found[0]}
    return Intervals(draws, {name: (low, high) for name, (low, high) in bounds.items()})
