"""From the boxes of every anchor to the few that are reported (section 3.1: filter, then NMS)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import area, clip, nms_per_class

MAX_CANDIDATES = 4096  # NMS compares each box with each


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How detections are chosen.

    Attributes:
        candidates: how many boxes, those of the highest scores over all classes, enter NMS.
            The paper's code takes 64, enough where one anchor learns an object; where several
            do, 64 boxes are a handful of objects.
        top_n: how many boxes, again the best, are reported after NMS.
        nms_iou: IoU above which the lower of two boxes of one class is dropped (0.4).
        score: a box below this score is not reported.

    Raises:
        ValueError: a number is out of its range.
    """

    candidates: int = 1024
    top_n: int = 64
    nms_iou: float = 0.4
    score: float = 0.4

    def __post_init__(self) -> None:
        for name in ("candidates", "top_n"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_CANDIDATES:
                raise ValueError(f"{name} must be an integer of 1 to {MAX_CANDIDATES}")
        for name in ("nms_iou", "score"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise ValueError(f"{name} must be a number of 0 to 1, not {value!r}")


@dataclass(frozen=True, slots=True, eq=False)
class RawBoxes:
    """What the network says of every anchor: (A, 4) xyxy, (A,) scores, (A,) class ids."""

    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    class_id: NDArray[np.int64]


def to_original(xyxy: NDArray[np.float32], content: tuple[int, int], original: tuple[int, int]) -> NDArray[np.float32]:
    """(N, 4) boxes in pixels of the input to pixels of the original image, clipped to it.

    Args:
        xyxy: boxes.
        content: (width, height) of the image within the input, see ``InputRule.content``.
        original: (width, height) of the image.
    """
    scale = np.array([original[0] / content[0], original[1] / content[1]] * 2, dtype=np.float32)
    return clip(xyxy * scale, *original).astype(np.float32, copy=False)


def select(raw: RawBoxes, selection: Selection) -> RawBoxes:
    """The boxes to report, by descending score: threshold, candidates, NMS per class, top-N."""
    score = raw.score
    candidates = np.flatnonzero(score >= selection.score)
    if len(candidates) > selection.candidates:
        best = np.argpartition(-score[candidates], selection.candidates - 1)
        best = best[: selection.candidates]
        candidates = np.sort(candidates[best])
    xyxy, score, class_id = raw.xyxy[candidates], score[candidates], raw.class_id[candidates]
    kept = nms_per_class(xyxy, score, class_id, selection.nms_iou)[: selection.top_n]
    return RawBoxes(xyxy[kept], score[kept], class_id[kept])


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
