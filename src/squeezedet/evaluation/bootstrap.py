"""How far a result depends on the images it was measured on: bootstrap over images.

Images are drawn with replacement, as many as there are, and evaluated again; the 2.5th
and 97.5th percentiles of many such draws are the interval (Efron's percentile method).
A class without an object in any image is in no mean; one without an object in a draw alone counts
as its protocol says there: 0 by KITTI's, left out by VOC's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    tasks = list(matching_problems(scene, rules, classes, KITTI_LEVELS))
    weights = _draws(len(ground_truth), draws, seed)
    columns: dict[str, list[float]] = {}
    for rule, level, problem in tasks:
        name = f"{rule.name}/{level.name}"
        results = [evaluate_problems(problem, weight) for weight in weights]
        columns[f"{name}/ap11"] = [r.ap11 for r in results]
        columns[f"{name}/ap40"] = [r.ap40 for r in results]
    _, objects = count(scene, rules, classes, KITTI_LEVELS)
    counted = [name for name, number in objects.items() if number]
    cells = len(counted) * len(KITTI_LEVELS)
    for mean, figure in (("map11", "/ap11"), ("map40", "/ap40")):
        names = [f"{name}/{level.name}{figure}" for name in counted for level in KITTI_LEVELS]
        parts = [columns[name] for name in names if name in columns]
        columns[mean] = (np.sum(parts, axis=0) / cells).tolist() if parts else [0.0] * draws
    return Intervals(draws, {name: _interval(column) for name, column in columns.items()})


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
    columns: dict[str, list[float]] = {}
    for weight in _draws(images, draws, seed):
        result = evaluate_images(np.repeat(np.arange(images), weight).tolist())
        figures = {"map11": result.map11, "map_area": result.map_area}
        for name, curve in result.results.items():
            figures[f"{name}/voc07_11point"] = curve.ap11 if curve else 0.0
            figures[f"{name}/area"] = curve.ap_area if curve else 0.0
        for name, value in figures.items():
            columns.setdefault(name, []).append(value)
    return Intervals(draws, {name: _interval(column) for name, column in columns.items()})


def _draws(images: int, draws: int, seed: int) -> NDArray[np.int64]:
    """(draws, images) how often each image is drawn."""
    rng = np.random.default_rng(seed)
    share = np.full(images, 1 / max(images, 1))
    return rng.multinomial(images, share, size=draws)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)
