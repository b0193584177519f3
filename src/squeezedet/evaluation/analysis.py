"""Beside the protocols: recall against boxes, the original code's errors, confusion of classes, TIDE's costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import iou
from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.evaluation.kitti import KITTI_CLASSES, ClassRule
from squeezedet.evaluation.matching import FlatBoxes, Floats, Indices, concatenate, covered, overlapping
from squeezedet.evaluation.voc import ClassCurve

Kind = Literal["correct", "localization", "classification", "background", "repeated", "missed"]
KINDS: tuple[Kind, ...] = ("correct", "localization", "classification", "background", "repeated", "missed")
TIDE_KINDS = ("localization", "classification", "both", "repeated", "background", "missed")
HIT = "hit"
TOUCHING, FOUND = 0.1, 0.5
Flags = NDArray[np.bool_]
NEVER = np.iinfo(np.int64).max
"""Rank of an object that no box of the image reaches."""


def _images(
    ground_truth: Sequence[Objects], detections: Sequence[Detections], classes: Iterable[str]
) -> Iterator[tuple[list[str], NDArray[np.float32], Detections]]:
    """Of each image the lower-case types and (G, 4) boxes of some classes, and their detections, best first."""
    names = {name.lower() for name in classes}
    for objects, found in zip(ground_truth, detections, strict=True):
        index = [i for i, kind in enumerate(objects.types) if kind.lower() in names]
        known = np.array([name.lower() in names for name in found.names], dtype=bool)
        mine = np.flatnonzero(known[found.class_id]) if len(found) else np.empty(0, np.intp)
        ranked = found[mine[np.argsort(-found.score[mine], kind="stable")]]
        yield [objects.types[i].lower() for i in index], objects.xyxy[index], ranked


def _overlaps(found: Detections, boxes: NDArray[np.float32]) -> Floats:
    return np.asarray(iou(found.xyxy.astype(np.float64), boxes.astype(np.float64)))


# ------------------------------------------------------------ recall against the number of boxes


class Ranks(NamedTuple):
    """For each labelled object of an image, the rank of the first raw box that reaches it.

    Attributes:
        same_class: (G,) rank among all boxes by falling score, 0 the best, of the first
            box of the object's class with enough IoU; ``NEVER`` if there is none.
        any_class: (G,) the same for a box of any class.
        boxes: how many raw boxes there are.
    """

    same_class: NDArray[np.int64]
    any_class: NDArray[np.int64]
    boxes: int


def first_ranks(objects: Objects, found: Detections, classes: Sequence[ClassRule] = KITTI_CLASSES) -> Ranks:
    """Rank the boxes of one image, before top-N and NMS, against its objects (see ``recall_curve``).

    Objects of the classes count, whatever height and occlusion; reaching one needs the IoU of its class.
    """
    overlap_of = {rule.name.lower(): rule.min_overlap for rule in classes}
    types, boxes, ranked = next(_images([objects], [found], overlap_of))
    overlaps = _overlaps(ranked, boxes).T
    reached = overlaps > np.array([overlap_of[t] for t in types]).reshape(-1, 1)
    box_type = np.array([n.lower() for n in ranked.names])[ranked.class_id]
    same = reached & (np.array(types, dtype=np.str_).reshape(-1, 1) == box_type)
    return Ranks(_first(same), _first(reached), len(ranked))


def _first(reached: Flags) -> NDArray[np.int64]:
    if not reached.size:
        return np.full(len(reached), NEVER)
    return np.where(reached.any(axis=1), reached.argmax(axis=1), NEVER)


@dataclass(frozen=True, slots=True)
class RecallCurve:
    """Recall against the number of boxes kept per image.

    Attributes:
        boxes: N, the boxes of highest score kept in each image; the last is all.
        same_class: recall when the box has the object's class.
        any_class: recall when any box will do.
        objects: how many labelled objects there are.
    """

    boxes: tuple[int, ...]
    same_class: tuple[float, ...]
    any_class: tuple[float, ...]
    objects: int


def recall_curve(ranks: Sequence[Ranks]) -> RecallCurve:
    """Recall against N_box, the paper's Fig. 5: N doubles from 8 to all boxes.

    The paper counts all three classes together, at all levels. It says neither the
    IoU nor whether the class has to be right: the IoU here is KITTI's for each class,
    and both recalls are given. Several objects may share a box.
    """
    most = max((r.boxes for r in ranks), default=0)
    numbers = [8 * 2**k for k in range(32) if 8 * 2**k < most] + [most]
    none = np.empty(0, np.int64)
    same = np.concatenate([none, *(r.same_class for r in ranks)])
    anything = np.concatenate([none, *(r.any_class for r in ranks)])
    total = max(len(same), 1)
    return RecallCurve(
        tuple(numbers),
        tuple(float((same < n).sum() / total) for n in numbers),
        tuple(float((anything < n).sum() / total) for n in numbers),
        len(same),
    )


# ------------------------------------------------------------ the original's analysis


@dataclass(frozen=True, slots=True)
class Case:
    """One detection, or one missed object.

    Attributes:
        image: index of the image.
        kind: what it is.
        name: class of the detection; of the object if it was missed.
        score: of the detection; -1 for a missed object.
        xyxy: its box in pixels.
        truth: class of the labelled box that it overlaps most, "" for background.
        truth_xyxy: that box; None for background.
        overlap: IoU of the two.
    """

    image: int
    kind: Kind
    name: str
    score: float
    xyxy: tuple[float, ...]
    truth: str = ""
    truth_xyxy: tuple[float, ...] | None = None
    overlap: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class ErrorAnalysis:
    """The sum over all images.

    Attributes:
        detections: how many were looked at.
        objects: labelled boxes of the classes.
        cases: each of them.
    """

    detections: int
    objects: int
    cases: tuple[Case, ...]

    def count(self, kind: Kind) -> int:
        """How many cases there are of a kind."""
        return sum(case.kind == kind for case in self.cases)

    def worst(self, kind: Kind, most: int) -> list[Case]:
        """The cases of a kind of highest score; the largest of the missed objects."""

        def badness(case: Case) -> float:
            x1, y1, x2, y2 = case.xyxy
            return (x2 - x1) * (y2 - y1) if kind == "missed" else case.score

        return sorted((c for c in self.cases if c.kind == kind), key=badness, reverse=True)[:most]


def analyze(ground_truth: Sequence[Objects], detections: Sequence[Detections], classes: Sequence[str]) -> ErrorAnalysis:
    """The error analysis of the original code.

    It looks, in each image, only at as many detections as there are objects, best scores first,
    and asks of each which labelled box it overlaps most (any class):

    - correct: same class, IoU >= 0.5, found first; repeated: found before;
    - localization: same class, 0.1 < IoU < 0.5; classification: another class, IoU > 0.1;
    - background: IoU <= 0.1; missed: an object that no correct detection found.

    Objects of the classes count at all heights, occlusions and truncations. Two of the original's
    oddities are gone: a detection's box is not one pixel wider, and no detections at all are no
    division by zero. As there, an image without objects is skipped. Classes are compared without case.
    """
    cases: list[Case] = []
    looked_at = objects_seen = 0
    for image, (types, boxes, found) in enumerate(_images(ground_truth, detections, classes)):
        best = found[: len(types)]
        looked_at += len(best)
        objects_seen += len(types)
        seen: set[int] = set()
        for detection, row in zip(best, _overlaps(best, boxes), strict=True):
            g = int(row.argmax())
            kind = _kind(float(row[g]), detection.name.lower() == types[g], g in seen)
            case = Case(image, kind, detection.name, detection.score, detection.xyxy, overlap=float(row[g]))
            if kind == "correct":
                seen.add(g)
            if kind != "background":
                case = replace(case, truth=types[g], truth_xyxy=tuple(boxes[g].tolist()))
            cases.append(case)
        missed = (g for g in range(len(types)) if g not in seen)
        cases += [Case(image, "missed", types[g], -1.0, tuple(boxes[g].tolist())) for g in missed]
    return ErrorAnalysis(looked_at, objects_seen, tuple(cases))


def _kind(overlap: float, same_class: bool, seen: bool) -> Kind:
    if overlap <= TOUCHING:
        return "background"
    if not same_class:
        return "classification"
    if overlap < FOUND:
        return "localization"
    return "repeated" if seen else "correct"


# ------------------------------------------------------------------ confusion


def confuse(
    ground_truth: Sequence[Objects], detections: Sequence[Detections], classes: Sequence[str], score: float
) -> NDArray[np.int64]:
    """Which of C classes was taken for which, by the detections from a score on.

    Boxes of any class are matched by falling score, one to one, IoU >= 0.5. This is stricter than KITTI's rules: a
    box on a van or in a DontCare area is a false alarm here, and every object counts, however small or hidden.

    Returns:
        (I, C + 1, C + 1) of each image; rows are what is there, columns what was found; the last row
        is nothing (false alarms), the last column is missed.
    """
    names = [name.lower() for name in classes]
    table = np.zeros((len(ground_truth), len(names) + 1, len(names) + 1), np.int64)
    for image, (types, boxes, found) in enumerate(_images(ground_truth, detections, classes)):
        best = found[found.score >= np.float32(score)]
        free = np.ones(len(types), dtype=bool)
        for detection, row in zip(best, _overlaps(best, boxes), strict=True):
            there = len(names)
            if len(row) and (row * free).max() >= FOUND:
                g = int((row * free).argmax())
                free[g] = False
                there = names.index(types[g])
            table[image, there, names.index(detection.name.lower())] += 1
        for kind, lost in zip(types, free, strict=True):
            table[image, names.index(kind), len(names)] += int(lost)
    return table


# ------------------------------------------------------------ what errors cost, after TIDE


@dataclass(frozen=True, slots=True, eq=False)
class ErrorCosts:
    """What the errors of each kind cost.

    Attributes:
        ap: mean over the classes of the average precision as it is.
        counts: kind -> number of errors.
        costs: kind -> mean average precision that mending all errors of the kind would win.
    """

    ap: float
    counts: dict[str, int]
    costs: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """The detections of the classes by falling score, and the labelled objects.

    Attributes:
        det_class, gt_class: (D,), (G,) index of the class.
        kind: (D,) ``HIT`` or a kind of error.
        target: (D,) the object that a hit, localization or classification error is about.
        missed: (G,) True for a missed object.
    """

    det_class: NDArray[np.int64]
    gt_class: NDArray[np.int64]
    kind: NDArray[np.str_]
    target: Indices
    missed: Flags


def error_costs(
    ground_truth: Sequence[Objects], detections: Sequence[Detections], classes: Sequence[ClassRule] = KITTI_CLASSES
) -> ErrorCosts:
    """Count the errors of each kind and what they cost.

    Objects of the classes count at all heights and occlusions. A detection that finds no
    object but lies on a neighbor type or in a DontCare area is left out.
    """
    ranked = _ranked(concatenate(ground_truth, detections), classes)
    present = [c for c in range(len(classes)) if (ranked.gt_class == c).any()]

    def mean_ap(mended: str | None) -> float:
        return float(np.mean([_class_ap(ranked, c, mended) for c in present])) if present else 0.0

    counts = {kind: int((ranked.kind == kind).sum()) for kind in TIDE_KINDS}
    counts["missed"] = int(ranked.missed.sum())
    ap = mean_ap(None)
    return ErrorCosts(ap, counts, {kind: mean_ap(kind) - ap for kind in TIDE_KINDS})


def _ranked(flat: FlatBoxes, classes: Sequence[ClassRule]) -> _Ranked:
    index = {rule.name.lower(): c for c, rule in enumerate(classes)}
    limit = np.array([rule.min_overlap for rule in classes])
    gt_class = np.array([index.get(t, -1) for t in flat.gt_type.tolist()], np.int64)
    det_class = np.array([index.get(t, -1) for t in flat.det_type.tolist()], np.int64)
    pairs = overlapping(flat.det_xyxy, flat.det_count, flat.gt_xyxy, flat.gt_count, above=TOUCHING)
    excused = _on_neighbors(flat, classes, det_class, pairs)
    det, gt, overlap = (part[(gt_class[pairs[1]] >= 0)] for part in pairs)
    same = det_class[det] == gt_class[gt]
    enough = overlap > limit[gt_class[gt]]

    found = _match(flat, det[same & enough], gt[same & enough], overlap[same & enough])
    right = _largest(len(det_class), det[same], gt[same], overlap[same])
    wrong = _largest(len(det_class), det[~same & enough], gt[~same & enough], overlap[~same & enough])
    touches = np.isin(np.arange(len(det_class)), det)
    sharp = np.isin(np.arange(len(det_class)), det[same & enough])
    cases = (found >= 0, (right >= 0) & ~sharp, wrong >= 0, sharp, ~touches)
    kind = np.select(cases, [HIT, "localization", "classification", "repeated", "background"], "both")
    target = np.select(cases[:3], [found, right, wrong], -1)

    evaluated = np.flatnonzero((det_class >= 0) & ((found >= 0) | ~excused))
    order = evaluated[np.argsort(-flat.det_score[evaluated], kind="stable")]
    missed = gt_class >= 0
    missed[target[order][target[order] >= 0]] = False
    return _Ranked(det_class[order], gt_class, kind[order], target[order], missed)


def _largest(detections: int, det: Indices, gt: Indices, overlap: Floats) -> Indices:
    """(D,) the object of the largest overlap with each detection, -1 for none."""
    best = np.full(detections, -1, np.intp)
    order = np.argsort(overlap, kind="stable")
    best[det[order]] = gt[order]  # the last assignment stays
    return best


def _on_neighbors(
    flat: FlatBoxes, classes: Sequence[ClassRule], det_class: NDArray[np.int64], pairs: tuple[Indices, Indices, Floats]
) -> Flags:
    """(D,) True where a detection lies on a neighbor type or in a DontCare area."""
    det, gt, overlap = pairs
    inside = covered(flat.det_xyxy, flat.det_count, flat.dontcare_xyxy, flat.dontcare_count)
    excused = np.zeros(len(det_class), dtype=bool)
    for c, rule in enumerate(classes):
        neighbor = np.isin(flat.gt_type, [n.lower() for n in rule.neighbours])
        excused |= (det_class == c) & (inside > rule.min_overlap)
        on_one = (det_class[det] == c) & neighbor[gt] & (overlap > rule.min_overlap)
        excused[det[on_one]] = True
    return excused


def _match(flat: FlatBoxes, det: Indices, gt: Indices, overlap: Floats) -> Indices:
    """(D,) the object that each detection finds, -1 for none; by falling score, the best free."""
    order = np.lexsort((gt, -overlap, det, -flat.det_score[det]))
    target = np.full(len(flat.det_score), -1, np.intp)
    taken = np.zeros(len(flat.gt_type), dtype=bool)
    for d, g in zip(det[order].tolist(), gt[order].tolist(), strict=True):
        if target[d] < 0 and not taken[g]:
            target[d] = g
            taken[g] = True
    return target


def _class_ap(ranked: _Ranked, c: int, mended: str | None) -> float:
    """Average precision of one class with the errors of one kind mended."""
    objects = int((ranked.gt_class == c).sum())
    if mended == "missed":
        objects -= int((ranked.missed & (ranked.gt_class == c)).sum())
    hit = ranked.kind == HIT
    belongs = ranked.det_class.copy()
    wrong = np.flatnonzero(ranked.kind == mended)
    if mended in ("localization", "classification"):
        found = set(ranked.target[hit].tolist())
        turned = []
        for d in wrong.tolist():
            if int(ranked.target[d]) not in found:
                found.add(int(ranked.target[d]))
                turned.append(d)
        hit[turned] = True
        belongs[turned] = ranked.gt_class[ranked.target[turned]]
        wrong = np.setdiff1d(wrong, turned)
    keep = belongs == c
    keep[wrong] = False
    true = np.cumsum(hit[keep])
    if not objects or not len(true):
        return float(not objects)
    return ClassCurve(objects, len(true), true / objects, true / np.arange(1, len(true) + 1)).ap_area
