"""KITTI 2D detection: average precision as KITTI's own tool computes it.

Two rule sets. ``paper`` is the C++ tool of 2016 that the SqueezeDet paper used:
detections of any height count, and a labelled box of exactly the minimum height
does too. ``current`` is the rule of the server since 2019: a detection whose
height, cut to an integer, is below the minimum is ignored, and a labelled box has
to be strictly higher. The score is the mean of 11 points of the precision-recall
curve for the paper, of 40 for the server; both are computed under both rule sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.kitti import KITTI_TYPES, parse_line
from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.errors import DataError, UsageError
from squeezedet.evaluation.matching import (
    Curve,
    FlatBoxes,
    Floats,
    Indices,
    Intervals,
    bootstrap,
    concatenate,
    covered,
    mean_of,
    overlapping,
    per_class,
)
from squeezedet.files import read_text

# ------------------------------------------------------------ the tool's greedy matching

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class MatchingProblem:
    """What one class at one level has to match.

    Attributes:
        gt_valid: (N,) True where a labelled box counts, False where it is ignored.
        gt_image: (N,) index of its image.
        det_score: (D,) scores.
        det_ignored: (D,) True where a detection counts neither way.
        det_excused: (D,) True where it lies in a DontCare area.
        det_image: (D,) index of its image.
        pair_gt, pair_det, pair_iou: (P,) the pairs that overlap enough.
    """

    gt_valid: Flags
    gt_image: Indices
    det_score: Floats
    det_ignored: Flags
    det_excused: Flags
    det_image: Indices
    pair_gt: Indices
    pair_det: Indices
    pair_iou: Floats


def assign(problem: MatchingProblem, thresholds: Floats | None = None) -> Indices:
    """Give each labelled box its detection.

    Without thresholds (the tool's first pass, T is 1) a labelled box takes the free detection of the
    highest score; with (T,) scores (the second) the one of the largest IoU among those that reach the
    threshold, an ignored detection only if there is no other. Ties go to the first in the file.

    Returns:
        (N, T) index of the detection that each labelled box takes, -1 for none.
    """
    gt, det = problem.pair_gt, problem.pair_det
    if thresholds is None:
        alive = np.ones((len(problem.det_score), 1), dtype=bool)
        order = np.lexsort((det, -problem.det_score[det], gt))
    else:
        alive = problem.det_score[:, None] >= thresholds
        ignored = problem.det_ignored[det]
        # Ignored detections do not compete by overlap: the first in the file is taken.
        order = np.lexsort((det, np.where(ignored, 0, -problem.pair_iou), ignored, gt))
    gt, det = gt[order], det[order]
    taken = np.full((len(problem.gt_valid), alive.shape[1]), -1, dtype=np.intp)
    for step in _steps(gt, problem.gt_image):
        g, d = gt[step], det[step]
        takes = alive[d] & (taken[g] < 0)
        taken[g] = np.where(takes, d[:, None], taken[g])
        alive[d] &= ~takes
    return taken


def _steps(gt: Indices, gt_image: Indices) -> list[Indices]:
    """Groups of pairs that can be decided together, in the order in which they must be.

    Given the (P,) labelled box of each pair, ascending, best detection first, and the (N,) image of
    each labelled box.
    """
    if not len(gt):
        return []
    choosing, first, many = np.unique(gt, return_index=True, return_counts=True)
    image = gt_image[choosing]
    _, first_of_image, boxes = np.unique(image, return_index=True, return_counts=True)
    turn = np.arange(len(choosing)) - np.repeat(first_of_image, boxes)
    rank = np.arange(len(gt)) - np.repeat(first, many)
    key = np.repeat(turn, many) * (rank.max() + 1) + rank
    order = np.argsort(key, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(key[order])) + 1)


def hits(problem: MatchingProblem, taken: Indices) -> Flags:
    """(N, T) True where a labelled box that counts has a detection that counts."""
    found = taken >= 0
    ignored = np.append(problem.det_ignored, True)[taken]
    hit: Flags = found & ~ignored & problem.gt_valid[:, None]
    return hit


def false_alarms(problem: MatchingProblem, taken: Indices, thresholds: Floats) -> Flags:
    """(D, T) True where a detection that counts reaches the threshold and has no excuse.

    Excuses: a labelled box took it, even an ignored one, or it lies in a DontCare area.
    """
    alarm: Flags = problem.det_score[:, None] >= thresholds
    alarm &= ~(problem.det_ignored | problem.det_excused)[:, None]
    gt, t = np.nonzero(taken >= 0)
    alarm[taken[gt, t], t] = False
    return alarm


# ------------------------------------------------------------ the protocol

Rules = Literal["paper", "current"]
SAMPLES = 41


@dataclass(frozen=True, slots=True)
class ClassRule:
    """How a class is evaluated.

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
KITTI_LEVELS = (Level("easy", 40, 0, 0.15), Level("moderate", 25, 1, 0.30), Level("hard", 25, 2, 0.50))
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
        precision: of the detections from one score on, by default the one from which the model shows them; None
            without such a score, or without a detection of it.
        recall: at that score; None without one, or without an object.
    """

    objects: int
    found: int
    precision41: Floats
    precision: float | None = None
    recall: float | None = None

    @property
    def ap11(self) -> float:
        """Mean of the 11 precisions at recall 0, 0.1, ..., 1."""
        return float(self.precision41[::4].mean())

    @property
    def ap40(self) -> float:
        """Mean of the 40 precisions at recall 1/40, 2/40, ..., 1."""
        return float(self.precision41[1:].mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return {
            "ap11": self.ap11,
            "ap40": self.ap40,
            "precision41": self.precision41.tolist(),
            "objects": self.objects,
            "found": self.found,
            "precision": self.precision,
            "recall": self.recall,
        }


@dataclass(frozen=True, slots=True, eq=False)
class KittiResult:
    """The answer of the protocol.

    Attributes:
        rules: the rule set.
        counts: ``images``; ``objects``, labelled boxes of the classes that count at some level; ``ignored``,
            labels that are no mistake to find nor to miss (boxes of the classes that count at no level,
            neighbour types, DontCare areas); ``detections`` of the classes, and ``other_detections``.
        objects: class -> labelled boxes that count at some level.
        results: class -> level -> result; None for a class that was never detected.
        score: the one that precision and recall are of, if any.
    """

    rules: Rules
    counts: Mapping[str, int]
    objects: Mapping[str, int]
    results: Mapping[str, Mapping[str, LevelResult] | None]
    score: float | None = None

    @property
    def ap(self) -> dict[str, float | None]:
        """``ap40`` at level moderate of each class; None for a class without an object."""
        return per_class(self.results, self.objects, lambda levels: levels["moderate"].ap40)

    @property
    def map11(self) -> float:
        """Mean of ``ap11`` over the levels and the classes that have an object; one never detected counts 0."""
        return self._mean("ap11")

    @property
    def map40(self) -> float:
        """Mean of ``ap40``; as for ``map11``."""
        return self._mean("ap40")

    def _mean(self, what: str) -> float:
        def over_levels(levels: Mapping[str, LevelResult]) -> float:
            return float(np.mean([getattr(level, what) for level in levels.values()]))

        return mean_of(per_class(self.results, self.objects, over_levels)) or 0.0

    def curves(self) -> dict[str, dict[str, Curve]]:
        """Class -> level -> curve, of the classes that were detected."""
        recall = [k / (SAMPLES - 1) for k in range(SAMPLES)]
        return {
            name: {level: (recall, r.precision41.tolist()) for level, r in levels.items()}
            for name, levels in self.results.items()
            if levels
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return {
            "protocol": "kitti",
            "rules": self.rules,
            "counts": dict(self.counts),
            "results": {
                name: levels and {level: r.to_dict() for level, r in levels.items()}
                for name, levels in self.results.items()
            },
            "map11": self.map11,
            "map40": self.map40,
            "score": self.score,
        }


def evaluate(
    ground_truth: Sequence[Objects],
    detections: Sequence[Detections],
    rules: Rules = "current",
    classes: Sequence[ClassRule] = KITTI_CLASSES,
    score: float | None = None,
) -> KittiResult:
    """Evaluate detections against labels.

    Args:
        ground_truth: the labels of each image, in the order of their files.
        detections: what was found in the same images, all scores, after NMS. Their
            order matters between equal scores or overlaps only.
        rules: ``paper`` or ``current``.
        classes: the classes and their overlaps.
        score: give precision and recall of the detections from this score on, too.

    Raises:
        UsageError: no such rule set, or no class.
        DataError: the numbers of images differ, or a value is not finite.
    """
    if rules not in ("paper", "current") or not classes:
        raise UsageError(f"rules are 'paper' or 'current', with at least one class, not {rules!r}")
    scene = concatenate(ground_truth, detections)
    return _result(rules, _count(scene, rules, classes), matching_problems(scene, rules, classes), score=score)


def _result(
    rules: Rules,
    counted: tuple[dict[str, int], dict[str, int]],
    problems: Iterable[tuple[ClassRule, Level, MatchingProblem]],
    weights: NDArray[np.integer] | None = None,
    score: float | None = None,
) -> KittiResult:
    results: dict[str, Mapping[str, LevelResult] | None] = dict.fromkeys(counted[1])
    for rule, level, problem in problems:
        results[rule.name] = {**(results[rule.name] or {}), level.name: evaluate_problem(problem, weights, score)}
    return KittiResult(rules, *counted, results, score)


def intervals(
    ground_truth: Sequence[Objects],
    detections: Sequence[Detections],
    rules: Rules = "current",
    classes: Sequence[ClassRule] = KITTI_CLASSES,
    draws: int = 1000,
) -> Intervals:
    """95 % intervals of every AP and of both means.

    Boxes are compared once; a draw only changes how often each image counts.
    """
    scene = concatenate(ground_truth, detections)
    problems = list(matching_problems(scene, rules, classes))
    counted = _count(scene, rules, classes)

    def figures(weights: NDArray[np.int64]) -> dict[str, float]:
        result = _result(rules, counted, problems, weights)
        found = {"map11": result.map11, "map40": result.map40}
        for name, levels in result.results.items():
            for level, r in (levels or {}).items():
                found |= {f"{name}/{level}/ap11": r.ap11, f"{name}/{level}/ap40": r.ap40}
        return found

    return bootstrap(figures, len(ground_truth), draws)


def matching_problems(
    scene: FlatBoxes, rules: Rules, classes: Sequence[ClassRule], levels: Sequence[Level] = KITTI_LEVELS
) -> Iterator[tuple[ClassRule, Level, MatchingProblem]]:
    """What each detected class has to match at each level."""
    lowest = min(rule.min_overlap for rule in classes)
    pairs = overlapping(scene.det_xyxy, scene.det_count, scene.gt_xyxy, scene.gt_count, above=lowest)
    excused = covered(scene.det_xyxy, scene.det_count, scene.dontcare_xyxy, scene.dontcare_count)
    for rule in classes:
        if rule.name.lower() in scene.det_type:
            for level in levels:
                yield (rule, level, _problem(scene, pairs, excused, rules=rules, rule=rule, level=level))


def _problem(
    scene: FlatBoxes,
    pairs: tuple[Indices, Indices, Floats],
    excused: Floats,
    *,
    rules: Rules,
    rule: ClassRule,
    level: Level,
) -> MatchingProblem:
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
    return MatchingProblem(
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


def _counts_at(scene: FlatBoxes, rules: Rules, level: Level) -> NDArray[np.bool_]:
    """(N,) True where a labelled box is easy enough for the level."""
    height = scene.gt_xyxy[:, 3] - scene.gt_xyxy[:, 1]
    high = height > level.min_height_px if rules == "current" else height >= level.min_height_px
    visible = scene.gt_occluded <= level.max_occluded
    return high & visible & (scene.gt_truncated <= level.max_truncated)


def evaluate_problem(
    problem: MatchingProblem, weights: NDArray[np.integer] | None = None, score: float | None = None
) -> LevelResult:
    """The curve of one class at one level, and its point at a score.

    ``weights`` (I,) say how often each image counts; once by default.
    """
    if weights is None:
        weights = np.ones(max(problem.gt_image.max(initial=0), problem.det_image.max(initial=0)) + 1, np.int64)
    gt_weight = weights[problem.gt_image]
    objects = int(gt_weight[problem.gt_valid].sum())
    taken = assign(problem)
    found = hits(problem, taken)[:, 0]
    scores = np.repeat(problem.det_score[taken[found, 0]], gt_weight[found])
    true, false = _counts(problem, weights, sample_scores(scores, objects))
    precision = np.zeros(SAMPLES)
    np.divide(true, true + false, out=precision[: len(true)], where=true + false > 0)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    curve = LevelResult(objects, len(scores), precision)
    if score is None:
        return curve
    right, wrong = (int(count[0]) for count in _counts(problem, weights, np.array([score])))
    return replace(
        curve, precision=right / (right + wrong) if right + wrong else None, recall=right / objects if objects else None
    )


def _counts(
    problem: MatchingProblem, weights: NDArray[np.integer], thresholds: Floats
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Right and wrong detections from each of (T,) scores on."""
    taken = assign(problem, thresholds)
    right = weights[problem.gt_image] @ hits(problem, taken)
    return right, weights[problem.det_image] @ false_alarms(problem, taken, thresholds)


def sample_scores(scores: Floats, objects: int) -> Floats:
    """At most 41 of the (K,) matched scores, where recall of the objects comes closest to 0, 1/40, ..., 1."""
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


def _count(scene: FlatBoxes, rules: Rules, classes: Sequence[ClassRule]) -> tuple[dict[str, int], dict[str, int]]:
    """What is evaluated, and class -> labelled boxes that count at some level."""
    names = [rule.name.lower() for rule in classes]
    neighbours = [n.lower() for rule in classes for n in rule.neighbours]
    easy_enough = np.logical_or.reduce([_counts_at(scene, rules, level) for level in KITTI_LEVELS])
    types = Counter(scene.gt_type[easy_enough].tolist())
    objects = {rule.name: types[rule.name.lower()] for rule in classes}
    known = int(np.isin(scene.gt_type, [*names, *neighbours]).sum())
    evaluated = int(np.isin(scene.det_type, names).sum())
    counts = {
        "images": len(scene.gt_count),
        "objects": sum(objects.values()),
        "ignored": known - sum(objects.values()) + len(scene.dontcare_xyxy),
        "detections": evaluated,
        "other_detections": len(scene.det_type) - evaluated,
    }
    return counts, objects


# ------------------------------------------------------------ result files


def read_results(folder: Path, ids: Sequence[str], names: Sequence[str] = KITTI_TYPES) -> list[Detections]:
    """Read the result files of a folder, strictly.

    Windows line ends, a byte-order mark and blank lines are accepted; class names
    are compared without case. An image without a file has no detections.

    Args:
        folder: holds ``ID.txt``, directly or in ``data`` as the tool of KITTI wants it.
        ids: the labelled images, in their order.
        names: the class names that a file may use.

    Raises:
        DataError: no file for any image, a file for an image without labels, or a
            malformed line; names file and line.
    """
    files = result_files(folder, ids)
    table = {name.lower(): index for index, name in enumerate(names)}
    return [
        _read_file(files[i], table, tuple(names)) if i in files else Detections.empty(tuple(names), image=i)
        for i in ids
    ]


def result_files(folder: Path, ids: Sequence[str]) -> dict[str, Path]:
    """The result file of each image that has one.

    Raises:
        DataError: there is none at all, or one for an image without labels.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of result files")
    if (folder / "data").is_dir() and not any(folder.glob("*.txt")):
        folder = folder / "data"
    files = {path.stem: path for path in folder.glob("*.txt")}
    if not files:
        raise DataError(f"{folder}: no result files; write one ID.txt for each image")
    unknown = sorted(files.keys() - set(ids))
    if unknown:
        raise DataError(
            f"{files[unknown[0]]}: detections for an image without labels"
            f" ({len(unknown)} of {len(files)} files); remove them or choose their split"
        )
    return files


def _read_file(path: Path, table: Mapping[str, int], names: tuple[str, ...]) -> Detections:
    rows, class_ids = [], []
    for line_number, line in enumerate(read_text(path, "result file").splitlines(), start=1):
        if line.strip():
            where = f"{path}:{line_number}"
            name, values = parse_line(line.split(), where, result=True)
            if name.lower() not in table:
                raise DataError(f"{where}: unknown class {name!r}; known are {', '.join(table)}")
            class_ids.append(table[name.lower()])
            rows.append([*values[3:7], values[-1]])
    numbers = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(numbers[:, :4], numbers[:, 4], np.array(class_ids, np.int64), names, image=path.stem)
