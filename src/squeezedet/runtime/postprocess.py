"""From the boxes of every anchor to the few that are reported (section 3.1: filter, then NMS)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import PerClass, area, clip, intersection, iou, nms_per_class, per_class

MAX_CANDIDATES = 4096  # NMS compares each box with each
OTHERS_SCORE = 0.05
"""Boxes below move no other one, nor its score."""
DOUBLE_IOU = 0.6
"""Boxes of one class that votes move onto one another by more than this are one."""
PART_SHARE = 0.85
"""A box with this share of its area inside another may be a part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How detections are chosen; a tuple holds one number for each class of the model.

    Attributes:
        candidates: how many boxes, those of the highest scores over all classes, enter NMS.
            The paper's code takes 64, enough where one anchor learns an object; where several
            do, 64 boxes are a handful of objects.
        top_n: how many boxes, again the best, are reported after NMS.
        nms_iou: IoU above which the lower of two boxes of one class is dropped (0.4).
        vote_iou: a box that stays becomes the mean, weighted by score times IoU, of all boxes of
            its class that overlap it by this IoU or more (box voting: Gidaris and Komodakis,
            arXiv 1505.01749, section 5); 1: boxes stay as they are.
        part_of: for each class the id of the class that it may be a part of, as a rider is of a
            cyclist, or -1; where a box of that class with score s holds such a box, the part's
            score is multiplied by 1 - s. Empty: no class is part of another.
        score: a box below this score is not reported.

    Raises:
        ValueError: a number is out of its range.
    """

    candidates: int = 1024
    top_n: int = 64
    nms_iou: PerClass = 0.4
    vote_iou: PerClass = 1.0
    part_of: tuple[int, ...] = ()
    score: float = 0.4

    def __post_init__(self) -> None:
        for name in ("candidates", "top_n"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_CANDIDATES:
                raise ValueError(f"{name} must be an integer of 1 to {MAX_CANDIDATES}")
        for name in ("nms_iou", "vote_iou", "score"):
            value = getattr(self, name)
            several = isinstance(value, tuple) and value and name != "score"
            if not all(type(v) in (int, float) and 0 <= v <= 1 for v in (value if several else [value])):
                raise ValueError(f"{name} must be a number of 0 to 1, not {value!r}")
        classes = range(-1, len(self.part_of))
        if not all(type(whole) is int and whole in classes and whole != i for i, whole in enumerate(self.part_of)):
            raise ValueError(f"part_of must hold the id of another class, or -1, for each class, not {self.part_of!r}")


@dataclass(frozen=True, slots=True, eq=False)
class RawBoxes:
    """What the network says of every anchor: (A, 4) xyxy, (A,) scores, (A,) class ids."""

    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    class_id: NDArray[np.int64]


def to_original(xyxy: NDArray[np.float32], content: tuple[int, int], original: tuple[int, int]) -> NDArray[np.float32]:
    """(N, 4) boxes in pixels of the input to pixels of the original image, clipped to it; sizes as for ``report``."""
    scale = np.array([original[0] / content[0], original[1] / content[1]] * 2, dtype=np.float32)
    return clip(xyxy * scale, *original).astype(np.float32, copy=False)


def select(raw: RawBoxes, selection: Selection) -> RawBoxes:
    """The boxes to report, by descending score: threshold, candidates, NMS per class, top-N, voting, parts."""
    found = _best(raw, selection.score, selection.candidates)
    iou_threshold = np.broadcast_to(per_class(selection.nms_iou, found.class_id), found.score.shape)
    kept = nms_per_class(found.xyxy, found.score, found.class_id, iou_threshold)[: selection.top_n]
    xyxy, score, class_id = found.xyxy[kept], found.score[kept], found.class_id[kept]
    overlap = per_class(selection.vote_iou, class_id)
    votes = len(kept) > 0 and np.min(overlap) < 1
    if not (votes or selection.part_of):
        return RawBoxes(xyxy, score, class_id)
    # Which boxes move others depends on no threshold of the user's, so a box is the same at every one.
    others = _best(raw, OTHERS_SCORE, selection.candidates)
    if votes:
        xyxy = vote(xyxy, class_id, others, overlap)
        apart = nms_per_class(xyxy, score, class_id, np.maximum(DOUBLE_IOU, iou_threshold[kept]))
        xyxy, score, class_id = xyxy[apart], score[apart], class_id[apart]
    reported = RawBoxes(xyxy, score, class_id)
    return without_parts(reported, others, selection) if selection.part_of else reported


def _best(raw: RawBoxes, score: float, count: int) -> RawBoxes:
    """The ``count`` best boxes of ``score`` or more, in the order of the anchors."""
    index = np.flatnonzero(raw.score >= score)
    if len(index) > count:
        index = np.sort(index[np.argpartition(-raw.score[index], count - 1)[:count]])
    return RawBoxes(raw.xyxy[index], raw.score[index], raw.class_id[index])


def vote(
    xyxy: NDArray[np.float32], class_id: NDArray[np.int64], voters: RawBoxes, vote_iou: float | NDArray[np.float32]
) -> NDArray[np.float32]:
    """(K, 4) boxes moved to the weighted means of the voters that overlap them, see ``Selection``."""
    overlap = iou(xyxy, voters.xyxy)
    near = (class_id[:, None] == voters.class_id) & (overlap >= np.reshape(vote_iou, (-1, 1)))
    weight = np.where(near, overlap * voters.score, 0)
    total = weight.sum(axis=1, keepdims=True)
    moved = np.divide(weight @ voters.xyxy, total, out=xyxy.copy(), where=total > 0)
    return np.where(np.reshape(vote_iou, (-1, 1)) < 1, moved, xyxy)


def without_parts(boxes: RawBoxes, wholes: RawBoxes, selection: Selection) -> RawBoxes:
    """Boxes without those that are more likely part of another object, see ``Selection.part_of``."""
    wanted = np.take(selection.part_of, boxes.class_id, mode="clip")
    share = intersection(boxes.xyxy, wholes.xyxy) / np.maximum(area(boxes.xyxy), np.finfo(np.float32).tiny)[:, None]
    holds = (wanted[:, None] == wholes.class_id) & (share >= PART_SHARE)
    score = boxes.score * (1 - np.where(holds, wholes.score, 0).max(axis=1, initial=0))
    index = np.argsort(-score, kind="stable")
    index = index[score[index] >= selection.score]
    return RawBoxes(boxes.xyxy[index], score[index], boxes.class_id[index])


def report(raw: RawBoxes, selection: Selection, content: tuple[int, int], original: tuple[int, int]) -> RawBoxes:
    """The boxes to report, in pixels of the original image and inside it, by descending score.

    Args:
        raw: the boxes of every anchor, in pixels of the network's input.
        selection: how they are chosen.
        content: (width, height) of the image within the input, see ``InputRule.content``.
        original: (width, height) of the image.
    """
    found = select(raw, selection)
    xyxy = to_original(found.xyxy, content, original)
    inside = area(xyxy) > 0  # a box may lie on the very edge
    return RawBoxes(xyxy[inside], found.score[inside], found.class_id[inside])
