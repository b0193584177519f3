"""From the boxes of every anchor to the few that are reported (section 3.1: top-N, then NMS)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import clip, nms_per_class


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How detections are chosen.

    Attributes:
        top_n: how many boxes, those of the highest scores over all classes, enter NMS (the
            paper's code: 64).
        nms_iou: IoU above which the lower of two boxes of one class is dropped (0.4).
        score: a box below this score is not reported.
    """

    top_n: int = 64
    nms_iou: float = 0.4
    score: float = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class RawBoxes:
    """What the network says of every anchor: (A, 4) xyxy, (A,) scores, (A,) class ids."""

    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    class_id: NDArray[np.int64]


def to_original(
    xyxy: NDArray[np.float32], size: tuple[int, int], original: tuple[int, int]
) -> NDArray[np.float32]:
    """(N, 4) boxes in pixels of the input to pixels of the original image, clipped to it.

    Args:
        xyxy: boxes.
        size: (width, height) of the network's input.
        original: (width, height) of the image.
    """
    scale = np.array([original[0] / size[0], original[1] / size[1]] * 2, dtype=np.float32)
    return clip(xyxy * scale, *original).astype(np.float32, copy=False)


def select(raw: RawBoxes, selection: Selection) -> RawBoxes:
    """The boxes to report, by descending score: score threshold, top-N, greedy NMS per class."""
    score = raw.score
    candidates = np.flatnonzero(score >= selection.score)
    if len(candidates) > selection.top_n:
        best = np.argpartition(-score[candidates], selection.top_n - 1)[: selection.top_n]
        candidates = np.sort(candidates[best])
    xyxy, score, class_id = raw.xyxy[candidates], score[candidates], raw.class_id[candidates]
    kept = nms_per_class(xyxy, score, class_id, selection.nms_iou)
    return RawBoxes(xyxy[kept], score[kept], class_id[kept])
