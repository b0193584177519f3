"""The KITTI tool's greedy matching, for all images and all score thresholds at once.

The tool takes the labelled boxes of an image in the order of the file; each takes
one detection that none before it took. Images do not touch each other, so the
first labelled box of every image chooses at the same time, then the second, and
so on: a few dozen steps on arrays instead of one on every image and threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeezedet.evaluation.pairs import Floats, Indices

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
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


def assign(problem: Problem, thresholds: Floats | None = None) -> Indices:
    """Give each labelled box its detection.

    Without thresholds (the tool's first pass) a labelled box takes the free
    detection of the highest score; with them (the second) the one of the largest
    IoU among those that reach the threshold, an ignored detection only if there
    is no other. Ties go to the first in the file.

    Args:
        problem: the class at its level.
        thresholds: (T,) scores, or None for the first pass, where T is 1.

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

    Args:
        gt: (P,) labelled box of each pair, ascending, best detection first.
        gt_image: (N,) image of each labelled box.
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


def hits(problem: Problem, taken: Indices) -> Flags:
    """(N, T) True where a labelled box that counts has a detection that counts."""
    found = taken >= 0
    ignored = np.append(problem.det_ignored, True)[taken]
    hit: Flags = found & ~ignored & problem.gt_valid[:, None]
    return hit


def false_alarms(problem: Problem, taken: Indices, thresholds: Floats) -> Flags:
    """(D, T) True where a detection that counts reaches the threshold and has no excuse.

    Excuses: a labelled box took it, even an ignored one, or it lies in a DontCare area.
    """
    alarm: Flags = problem.det_score[:, None] >= thresholds
    alarm &= ~(problem.det_ignored | problem.det_excused)[:, None]
    gt, t = np.nonzero(taken >= 0)
    alarm[taken[gt, t], t] = False
    return alarm
