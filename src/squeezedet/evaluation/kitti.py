"""KITTI 2D detection: average precision as the referee's own tool computes it.

Two rule sets. ``paper`` is the C++ tool of 2016 that the SqueezeDet paper used:
detections of any height count, and a labelled box of exactly the minimum height
does too. ``current`` is the rule of the server since 2019: a detection whose
height, cut to an integer, is below the minimum is ignored, and a labelled box has
to be strictly higher. The score is the mean of 11 points of the precision-recall
curve for the paper, of 40 for the server; both are computed under both rule sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.errors import UsageError
from squeezedet.evaluation.kitti_matching import Problem, assign, false_alarms, hits
from squeezedet.evaluation.pairs import Floats, Indices, covered, overlapping
from squeezedet.evaluation.scene import Scene, lay_out

Rules = Literal["paper", "current"]
SAMPLES = 41


@dataclass(frozen=True, slots=True)
class ClassRule:
    """How a class is judged.

    Attributes:
        name: class name; compared without case.
        min_overlap: a match needs an IoU strictly above this.
        neighbours: label types so alike that finding one is no mistake.
    """

    name: str
    min_overlap: float
    neighbours: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Level:
    """Which labelled boxes count: at least so high (px), at most so occluded and truncated."""

    name: str
    min_height_px: float
    max_occluded: int
    max_truncated: float


KITTI_CLASSES = (
    ClassRule("car", 0.7, ("van",)),
    ClassRule("pedestrian", 0.5, ("person_sitting",)),
    ClassRule("cyclist", 0.5),
)
KITTI_LEVELS = (
    Level("easy", 40, 0, 0.15),
    Level("moderate", 25, 1, 0.30),
    Level("hard", 25, 2, 0.50),
)
OTHER_OVERLAP = 0.5


def rules_for(names: Sequence[str]) -> list[ClassRule]:
    """KITTI's rules for KITTI's classes, an overlap of 0.5 and no neighbours for any other."""
    known = {rule.name: rule for rule in KITTI_CLASSES}
    return [known.get(name.lower(), ClassRule(name, OTHER_OVERLAP)) for name in names]


@dataclass(frozen=True, slots=True, eq=False)
class LevelResult:
    """One class at one level.

    Attributes:
        objects: labelled boxes that count.
        found: those that some detection matches, whatever its score.
        precision41: (41,) precision at recall 0, 1/40, ..., 1; never rises.
    """

    objects: int
    found: int
    precision41: Floats

    @property
    def ap11(self) -> float:
        """Mean of the 11 precisions at recall 0, 0.1, ..., 1."""
        return float(self.precision41[::4].mean())

    @property
    def ap40(self) -> float:
        """Mean of the 40 precisions at recall 1/40, 2/40, ..., 1."""
        return float(self.precision41[1:].mean())


@dataclass(frozen=True, slots=True)
class Counts:
    """What was judged.

    Attributes:
        images: number of images.
        objects: labelled boxes of the classes that count at some level.
        ignored: labels that are no mistake to find nor to miss: boxes of the classes
            that count at no level, neighbour types, DontCare areas.
        detections: detections of the classes.
        other_detections: detections of classes that are not judged.
    """

    images: int
    objects: int
    ignored: int
    detections: int
    other_detections: int


@dataclass(frozen=True, slots=True, eq=False)
class KittiResult:
    """The answer of the protocol.

    Attributes:
        rules: the rule set.
        counts: what was judged.
        results: class -> level -> result; None for a class that was never detected.
    """

    rules: Rules
    counts: Counts
    results: Mapping[str, Mapping[str, LevelResult] | None]

    @property
    def map11(self) -> float:
        """Mean of ``ap11`` over classes and levels; a class never detected counts 0."""
        return self._mean("ap11")

    @property
    def map40(self) -> float:
        """Mean of ``ap40`` over classes and levels; a class never detected counts 0."""
        return self._mean("ap40")

    def _mean(self, what: str) -> float:
        per_class = [
            float(np.mean([getattr(level, what) for level in levels.values()])) if levels else 0.0
            for levels in self.results.values()
        ]
        return float(np.mean(per_class))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        counts = {name: getattr(self.counts, name) for name in Counts.__slots__}
        return {
            "protocol": "kitti",
            "rules": self.rules,
            "counts": counts,
            "results": {
                name: levels and {level: _level_dict(r) for level, r in levels.items()}
                for name, levels in self.results.items()
            },
            "map11": self.map11,
            "map40": self.map40,
        }


def _level_dict(result: LevelResult) -> dict[str, Any]:
    return {
        "ap11": result.ap11,
        "ap40": result.ap40,
        "precision41": result.precision41.tolist(),
        "objects": result.objects,
        "found": result.found,
    }


def evaluate(
    ground_truth: Sequence[Objects],
    detections: Sequence[Detections],
    rules: Rules = "current",
    classes: Sequence[ClassRule] = KITTI_CLASSES,
    levels: Sequence[Level] = KITTI_LEVELS,
) -> KittiResult:
    """Judge detections against labels.

    Args:
        ground_truth: the labels of each image, in the order of their files.
        detections: what was found in the same images, all scores, after NMS. Their
            order matters between equal scores or overlaps only.
        rules: ``paper`` or ``current``.
        classes: the classes and their overlaps.
        levels: the difficulties.

    Raises:
        UsageError: no such rule set, or no class.
        DataError: the numbers of images differ, or a value is not finite.
    """
    if rules not in ("paper", "current") or not classes:
        raise UsageError(f"rules are 'paper' or 'current', with at least one class, not {rules!r}")
    scene = lay_out(ground_truth, detections)
    results: dict[str, Mapping[str, LevelResult] | None] = {c.name: None for c in classes}
    for rule, level, problem in problems(scene, rules, classes, levels):
        results[rule.name] = {**(results[rule.name] or {}), level.name: judge(problem)}
    return KittiResult(rules, _count(scene, rules, classes, levels), results)


def problems(
    scene: Scene, rules: Rules, classes: Sequence[ClassRule], levels: Sequence[Level]
) -> Iterator[tuple[ClassRule, Level, Problem]]:
    """What each detected class has to match at each level."""
    lowest = min(rule.min_overlap for rule in classes)
    pairs = overlapping(
        scene.det_xyxy, scene.det_count, scene.gt_xyxy, scene.gt_count, above=lowest
    )
    excused = covered(scene.det_xyxy, scene.det_count, scene.dontcare_xyxy, scene.dontcare_count)
    for rule in classes:
        if rule.name.lower() in scene.det_type:
            for level in levels:
                yield (
                    rule,
                    level,
                    _problem(scene, pairs, excused, rules=rules, rule=rule, level=level),
                )


def _problem(
    scene: Scene,
    pairs: tuple[Indices, Indices, Floats],
    excused: Floats,
    *,
    rules: Rules,
    rule: ClassRule,
    level: Level,
) -> Problem:
    same = scene.gt_type == rule.name.lower()
    valid = same & _counts_at(scene, rules, level)
    listed = same | np.isin(scene.gt_type, [n.lower() for n in rule.neighbours])
    of_class = scene.det_type == rule.name.lower()
    height = np.abs(scene.det_xyxy[:, 1] - scene.det_xyxy[:, 3]).astype(np.int64)
    # The server's rule marks low detections of any class, not only of this one.
    low = (height < level.min_height_px) & (rules == "current")
    det, gt, iou = pairs
    keep = listed[gt] & (of_class | low)[det] & (iou > rule.min_overlap)
    # Detections of other classes that overlap nothing are out of the game.
    members = of_class.copy()
    members[det[keep]] = True
    new_index = np.cumsum(members) - 1
    return Problem(
        gt_valid=valid,
        gt_image=scene.gt_image,
        det_score=scene.det_score[members],
        det_ignored=low[members],
        det_excused=excused[members] > rule.min_overlap,
        det_image=scene.det_image[members],
        pair_gt=gt[keep],
        pair_det=new_index[det[keep]],
        pair_iou=iou[keep],
    )


def _counts_at(scene: Scene, rules: Rules, level: Level) -> NDArray[np.bool_]:
    """(N,) True where a labelled box is easy enough for the level."""
    height = scene.gt_xyxy[:, 3] - scene.gt_xyxy[:, 1]
    high = height > level.min_height_px if rules == "current" else height >= level.min_height_px
    visible = scene.gt_occluded <= level.max_occluded
    return high & visible & (scene.gt_truncated <= level.max_truncated)


def judge(problem: Problem, weights: NDArray[np.integer] | None = None) -> LevelResult:
    """The curve of one class at one level.

    Args:
        problem: the class at its level.
        weights: (I,) how often each image counts; once by default.
    """
    if weights is None:
        images = max(
            (int(i.max()) for i in (problem.gt_image, problem.det_image) if len(i)), default=0
        )
        weights = np.ones(images + 1, np.int64)
    gt_weight = weights[problem.gt_image]
    objects = int(gt_weight[problem.gt_valid].sum())
    taken = assign(problem)
    found = hits(problem, taken)[:, 0]
    scores = np.repeat(problem.det_score[taken[found, 0]], gt_weight[found])
    thresholds = sample_scores(scores, objects)
    taken = assign(problem, thresholds)
    true = gt_weight @ hits(problem, taken)
    false = weights[problem.det_image] @ false_alarms(problem, taken, thresholds)
    precision = np.zeros(SAMPLES)
    np.divide(true, true + false, out=precision[: len(true)], where=true + false > 0)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return LevelResult(objects, len(scores), precision)


def sample_scores(scores: Floats, objects: int) -> Floats:
    """At most 41 of the matched scores, where recall comes closest to 0, 1/40, ..., 1.

    Args:
        scores: (K,) scores of the matched detections, in any order.
        objects: how many labelled boxes count.
    """
    falling = np.sort(scores)[::-1]
    last = len(falling) - 1
    chosen = []
    target = 0.0
    i = 0
    while i <= last:
        # Below this the recall is surely too low; start there, decide as the tool does.
        i = min(max(i, int(target * objects - 1.5) - 1), last)
        while i < last and (i + 2) / objects - target < target - (i + 1) / objects:
            i += 1
        chosen.append(falling[i])
        target += 1 / (SAMPLES - 1)
        i += 1
    return np.array(chosen)


def _count(
    scene: Scene, rules: Rules, classes: Sequence[ClassRule], levels: Sequence[Level]
) -> Counts:
    names = [rule.name.lower() for rule in classes]
    neighbours = [n.lower() for rule in classes for n in rule.neighbours]
    easy_enough = np.zeros(len(scene.gt_type), dtype=bool)
    for level in levels:
        easy_enough |= _counts_at(scene, rules, level)
    of_class = np.isin(scene.gt_type, names)
    ignored = np.isin(scene.gt_type, [*names, *neighbours]) & ~(of_class & easy_enough)
    judged = int(np.isin(scene.det_type, names).sum())
    return Counts(
        images=len(scene.gt_count),
        objects=int((of_class & easy_enough).sum()),
        ignored=int(ignored.sum()) + len(scene.dontcare_xyxy),
        detections=judged,
        other_detections=len(scene.det_type) - judged,
    )
