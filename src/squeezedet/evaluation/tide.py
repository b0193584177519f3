"""What each kind of error costs: the average precision that mending it would win.

After TIDE (Bolya et al., ECCV 2020, section 2). Each false alarm has one kind, decided
in this order, with the class's own overlap as the foreground limit and 0.1 as the
background limit:

- localisation: the right class, an overlap between the limits;
- classification: another class, an overlap above the limit;
- repeated: the right class and overlap, but the object was found at a higher score;
- background: no overlap above 0.1 with any object; both: whatever is left.

An object is missed when no detection found it and no localisation or classification
error would. To mend an error is to turn it into a hit where the object was not found,
or else to delete it; to mend a missed object is not to ask for it. Unlike in TIDE, the
limit is each class's own and average precision is the area under the curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.evaluation.kitti import KITTI_CLASSES, ClassRule
from squeezedet.evaluation.pairs import Floats, Indices, covered, overlapping
from squeezedet.evaluation.scene import Scene, lay_out
from squeezedet.evaluation.voc import area_under

BACKGROUND = 0.1
KINDS = ("localisation", "classification", "both", "repeated", "background", "missed")
HIT = "hit"
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ErrorCosts:
    """The answer.

    Attributes:
        ap: mean over the classes of the average precision as it is.
        counts: kind -> number of errors.
        costs: kind -> mean average precision that mending all errors of the kind would win.
    """

    ap: float
    counts: dict[str, int]
    costs: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return {"ap": self.ap, "counts": self.counts, "costs": self.costs}


@dataclass(frozen=True, slots=True, eq=False)
class _Board:
    """The detections and objects of the classes, by falling score and in order.

    Attributes:
        det_class, gt_class: (D,), (G,) index of the class.
        kind: (D,) ``HIT`` or a kind of error.
        target: (D,) the object that a hit, localisation or classification error is about.
        missed: (G,) True for a missed object.
    """

    det_class: NDArray[np.int64]
    gt_class: NDArray[np.int64]
    kind: NDArray[np.str_]
    target: Indices
    missed: Flags


def error_costs(
    ground_truth: Sequence[Objects],
    detections: Sequence[Detections],
    classes: Sequence[ClassRule] = KITTI_CLASSES,
) -> ErrorCosts:
    """Count the errors of each kind and what they cost.

    Objects of the classes count at all heights and occlusions. A detection that finds no
    object but lies on a neighbour type or in a DontCare area is left out.
    """
    board = _board(lay_out(ground_truth, detections), classes)
    present = [c for c in range(len(classes)) if (board.gt_class == c).any()]
    base = _mean_ap(board, present, mend=None)
    counts = {kind: int((board.kind == kind).sum()) for kind in KINDS}
    counts["missed"] = int(board.missed.sum())
    costs = {kind: _mean_ap(board, present, mend=kind) - base for kind in KINDS}
    return ErrorCosts(base, counts, costs)


def _board(scene: Scene, classes: Sequence[ClassRule]) -> _Board:
    index = {rule.name.lower(): c for c, rule in enumerate(classes)}
    limit = np.array([rule.min_overlap for rule in classes])
    gt_class = np.array([index.get(t, -1) for t in scene.gt_type.tolist()], np.int64)
    det_class = np.array([index.get(t, -1) for t in scene.det_type.tolist()], np.int64)
    pairs = overlapping(
        scene.det_xyxy, scene.det_count, scene.gt_xyxy, scene.gt_count, above=BACKGROUND
    )
    excused = _on_neighbours(scene, classes, det_class, pairs)
    det, gt, overlap = (part[(gt_class[pairs[1]] >= 0)] for part in pairs)
    same = det_class[det] == gt_class[gt]
    enough = overlap > limit[gt_class[gt]]

    found = _match(scene, det[same & enough], gt[same & enough], overlap[same & enough])
    right = _largest(len(det_class), det[same], gt[same], overlap[same])
    wrong = _largest(
        len(det_class), det[~same & enough], gt[~same & enough], overlap[~same & enough]
    )
    touches = np.zeros(len(det_class), dtype=bool)
    touches[det] = True
    sharp = np.zeros(len(det_class), dtype=bool)
    sharp[det[same & enough]] = True
    cases = (found >= 0, (right >= 0) & ~sharp, wrong >= 0, sharp, ~touches)
    kind = np.select(
        cases, [HIT, "localisation", "classification", "repeated", "background"], "both"
    )
    target = np.select(cases[:3], [found, right, wrong], -1)

    judged = np.flatnonzero((det_class >= 0) & ((found >= 0) | ~excused))
    ranked = judged[np.argsort(-scene.det_score[judged], kind="stable")]
    missed = gt_class >= 0
    missed[target[ranked][target[ranked] >= 0]] = False
    return _Board(det_class[ranked], gt_class, kind[ranked], target[ranked], missed)


def _largest(detections: int, det: Indices, gt: Indices, overlap: Floats) -> Indices:
    """(D,) the object of the largest overlap with each detection, -1 for none."""
    best = np.full(detections, -1, np.intp)
    order = np.argsort(overlap, kind="stable")
    best[det[order]] = gt[order]  # the last assignment stays
    return best


def _on_neighbours(
    scene: Scene,
    classes: Sequence[ClassRule],
    det_class: NDArray[np.int64],
    pairs: tuple[Indices, Indices, Floats],
) -> Flags:
    """(D,) True where a detection lies on a neighbour type or in a DontCare area."""
    det, gt, overlap = pairs
    inside = covered(scene.det_xyxy, scene.det_count, scene.dontcare_xyxy, scene.dontcare_count)
    excused = np.zeros(len(det_class), dtype=bool)
    for c, rule in enumerate(classes):
        neighbour = np.isin(scene.gt_type, [n.lower() for n in rule.neighbours])
        excused |= (det_class == c) & (inside > rule.min_overlap)
        on_one = (det_class[det] == c) & neighbour[gt] & (overlap > rule.min_overlap)
        excused[det[on_one]] = True
    return excused


def _match(scene: Scene, det: Indices, gt: Indices, overlap: Floats) -> Indices:
    """(D,) the object that each detection finds, -1 for none; by falling score, the best free."""
    order = np.lexsort((gt, -overlap, det, -scene.det_score[det]))
    target = np.full(len(scene.det_score), -1, np.intp)
    taken = np.zeros(len(scene.gt_type), dtype=bool)
    for d, g in zip(det[order].tolist(), gt[order].tolist(), strict=True):
        if target[d] < 0 and not taken[g]:
            target[d] = g
            taken[g] = True
    return target


def _mean_ap(board: _Board, present: list[int], mend: str | None) -> float:
    aps = [_class_ap(board, c, mend) for c in present]
    return float(np.mean(aps)) if aps else 0.0


def _class_ap(board: _Board, c: int, mend: str | None) -> float:
    """Average precision of one class with the errors of one kind mended."""
    objects = int((board.gt_class == c).sum())
    if mend == "missed":
        objects -= int((board.missed & (board.gt_class == c)).sum())
    hit = board.kind == HIT
    mended = np.flatnonzero(board.kind == mend)
    belongs = board.det_class.copy()
    if mend in ("localisation", "classification"):
        found = set(board.target[hit].tolist())
        turned = []
        for d in mended.tolist():
            if int(board.target[d]) not in found:
                found.add(int(board.target[d]))
                turned.append(d)
        hit = hit.copy()
        hit[turned] = True
        belongs[turned] = board.gt_class[board.target[turned]]
        mended = np.setdiff1d(mended, turned)
    keep = belongs == c
    keep[mended] = False
    true = np.cumsum(hit[keep])
    if not objects or not len(true):
        return float(not objects)
    return area_under(true / objects, true / np.arange(1, len(true) + 1))
