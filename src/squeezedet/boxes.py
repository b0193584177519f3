"""Box geometry in NumPy: conversions, intersection over union, non-maximum suppression.

Boxes are ``xyxy``: (x1, y1, x2, y2) in continuous pixel coordinates, where the
image spans [0, width] x [0, height]. No pixel is ever added: the width of a box
is x2 - x1 (the original code adds 1 twice, see docs/traps.md, trap 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]
PerClass = float | tuple[float, ...]
"""One number for all classes, or one for each."""


def per_class(value: PerClass, class_id: NDArray[np.integer]) -> float | NDArray[np.float32]:
    """The number that holds for each of (N,) class ids; ids that are no class take the nearest."""
    return np.take(np.array(value, np.float32), class_id, mode="clip") if isinstance(value, tuple) else value


def xyxy_to_cxcywh(xyxy: Boxes) -> Boxes:
    """(..., 4) corners to (..., 4) center, width and height."""
    x1, y1, x2, y2 = np.moveaxis(np.asarray(xyxy), -1, 0)
    return np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=-1)


def cxcywh_to_xyxy(cxcywh: Boxes) -> Boxes:
    """(..., 4) center, width and height to (..., 4) corners."""
    cx, cy, w, h = np.moveaxis(np.asarray(cxcywh), -1, 0)
    return np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=-1)


def area(xyxy: Boxes) -> Boxes:
    """(..., 4) boxes to (...) areas; 0 for a box with no width or no height."""
    size = np.maximum(xyxy[..., 2:] - xyxy[..., :2], 0)
    return size[..., 0] * size[..., 1]


def intersection(a: Boxes, b: Boxes) -> Boxes:
    """(N, 4) and (M, 4) boxes to the (N, M) areas they share."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    size: Boxes = np.maximum(bottom_right - top_left, 0)
    return size[..., 0] * size[..., 1]


def iou(a: Boxes, b: Boxes) -> Boxes:
    """(N, 4) and (M, 4) boxes to the (N, M) intersections over union; 0 where both are empty."""
    shared = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def clip(xyxy: Boxes, width: float, height: float) -> Boxes:
    """(..., 4) boxes cut to an image of the given size."""
    limit = np.asarray([width, height, width, height], dtype=xyxy.dtype)
    return np.clip(xyxy, 0, limit)


def nms(xyxy: Boxes, score: Boxes, iou_threshold: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    A box is dropped when its IoU with a *kept* box of higher score exceeds the
    threshold; a dropped box suppresses nothing (the original code differs,
    trap 5). Equal scores keep their order of input.

    Args:
        xyxy: (N, 4) boxes.
        score: (N,) scores.
        iou_threshold: IoU above which the lower box is dropped.

    Returns:
        (K,) indices of the boxes that stay, by descending score.
    """
    order = np.argsort(-score, kind="stable")
    kept, rest = [], order
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        rest = rest[~(iou(xyxy[best : best + 1], xyxy[rest])[0] > iou_threshold)]
    return np.array(kept, dtype=np.intp)


def nms_per_class(
    xyxy: Boxes, score: Boxes, class_id: NDArray[np.integer], iou_threshold: float | Boxes
) -> NDArray[np.intp]:
    """Greedy NMS within each class; (K,) indices by descending score over all classes.

    The IoU threshold is one number, or (N,) numbers, the same for all boxes of a class.
    """
    thresholds = np.broadcast_to(iou_threshold, score.shape)
    kept = [
        members[nms(xyxy[members], score[members], thresholds[members[0]])]
        for c in np.unique(class_id)
        for members in [np.flatnonzero(class_id == c)]
    ]
    if not kept:
        return np.empty(0, dtype=np.intp)
    index = np.concatenate(kept)
    return index[np.lexsort((index, -score[index]))]
