"""Peers at more pixels than their input has: overlapping tiles, merged by NMS.

A small object of a large image is a handful of pixels at 416x416. A tile shows a part of the
image at its own scale, or larger; a box cut by the inner edge of a tile is left to the
tiles beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from peers.network import FLOOR, PeerDetector, renamed
from squeezedet.boxes import nms_per_class
from squeezedet.detections import Detections
from squeezedet.media.images import Frame

INPUT_SIDE = 416
EDGE_PX = 3
"""A box that ends so near to an inner edge of its tile counts as cut, in pixels of the input."""


def starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along one side, evenly spread.

    Args:
        length: of the side in pixels.
        tile: length of a tile; at most that of the side.
        overlap: least part of a tile that its neighbour shows, too.
    """
    step = max(1.0, tile * (1 - overlap))
    gaps = int(np.ceil((length - tile) / step))
    return [round(i * (length - tile) / gaps) for i in range(gaps)] + [length - tile]


def windows(width: int, height: int, scale: float, overlap: float) -> Iterator[tuple[int, int, int]]:
    """x, y and side of the square tiles that cover an image.

    Args:
        width: of the image in pixels.
        height: of the image in pixels.
        scale: pixels of the input for one of the image; less where the image is smaller than
            a tile.
        overlap: least part of a tile that its neighbour shows, too.
    """
    side = min(round(INPUT_SIDE / scale), width, height)
    for y in starts(height, side, overlap):
        for x in starts(width, side, overlap):
            yield x, y, side


def uncut(xyxy: NDArray[np.float32], window: tuple[int, int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(N,) True where a box ends at no edge of its tile but those that are the image's.

    Args:
        xyxy: (N, 4) boxes in pixels of the tile.
        window: x, y and side of the tile.
        size: width and height of the image.
    """
    x, y, side = window
    margin = EDGE_PX * side / INPUT_SIDE
    inner = np.array([x > 0, y > 0, x + side < size[0], y + side < size[1]])
    near = np.concatenate([xyxy[:, :2] < margin, xyxy[:, 2:] > side - margin], axis=1)
    whole: NDArray[np.bool_] = ~(near & inner).any(axis=1)
    return whole


def merge(parts: Sequence[Detections], nms_iou: float) -> Detections:
    """Detections of one image from several looks at it, the best of each heap of boxes.

    Args:
        parts: all with the same names, in pixels of the image; one at least.
        nms_iou: IoU above which the lower box of a class is dropped.
    """
    xyxy = np.concatenate([part.xyxy for part in parts])
    score = np.concatenate([part.score for part in parts])
    class_id = np.concatenate([part.class_id for part in parts])
    kept = nms_per_class(xyxy, score, class_id, nms_iou)
    return replace(parts[0], xyxy=xyxy[kept], score=score[kept], class_id=class_id[kept])


def detect_tiled(
    detectors: Sequence[PeerDetector],
    frame: Frame,
    names: Sequence[str],
    *,
    scales: Sequence[float] = (1.0, 1.5),
    overlap: float = 0.3,
    score: float = FLOOR,
    nms_iou: float = 0.55,
) -> Detections:
    """COCO's classes in the whole image and in tiles of it, all detectors together.

    Args:
        detectors: one at least.
        frame: the image.
        names: which of COCO's classes.
        scales: of the tiles: pixels of the input for one of the image.
        overlap: least part of a tile that its neighbour shows, too.
        score: threshold.
        nms_iou: of the merge.
    """
    height, width = frame.pixels.shape[:2]
    keep = {name: name for name in names}
    parts = [renamed(d.coco(frame, score), keep) for d in detectors]
    for scale in scales:
        for x, y, side in windows(width, height, scale, overlap):
            tile = Frame(np.ascontiguousarray(frame.pixels[y : y + side, x : x + side]))
            for detector in detectors:
                found = renamed(detector.coco(tile, score), keep)
                found = found[uncut(found.xyxy, (x, y, side), (width, height))]
                shift = np.array([x, y, x, y], np.float32)
                parts.append(replace(parts[0], xyxy=found.xyxy + shift, score=found.score, class_id=found.class_id))
    return merge(parts, nms_iou)
