"""What each peer is: the pixels that it wants, and what its numbers mean.

Four learned from COCO's 118,000 images: ``person`` counts as pedestrian, ``car`` as car; COCO has
no cyclist (a bicycle and the person on it are two boxes). Intel's learned this very task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Size = tuple[int, int]
Found = tuple[Floats, Floats, NDArray[np.int64]]
"""(K, 4) xyxy in pixels of the input, (K,) scores, (K,) indices into the peer's classes."""
CLASSES = ("car", "pedestrian")
COCO_COLUMNS = [2, 0]
"""Of ``CLASSES`` among COCO's 80."""
BINS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A published network.

    Attributes:
        name: as published.
        file: ONNX, or OpenVINO's .xml with the .bin beside it.
        size: (width, height) of its own input.
        layout: an image is stretched to the input, or keeps its shape in the upper left corner or
            in the center.
        multiple: of which the sides of another input are; None where the graph takes none.
        fill: gray value of the pixels beside the image.
        bgr: whether blue comes first.
        mean, deviation: of each channel, in the network's order.
        decode: the graph's outputs, the size of its input and a score threshold to boxes.
        nms_iou: of its published evaluation; None where the graph has NMS inside.
        classes: what it finds, under KITTI's names.
    """

    name: str
    file: str
    size: Size = (416, 416)
    layout: Literal["stretch", "corner", "center"] = "stretch"
    multiple: int | None = None
    fill: int = 0
    bgr: bool = True
    mean: Sequence[float] = (0, 0, 0)
    deviation: Sequence[float] = (1, 1, 1)
    decode: Callable[[Sequence[NDArray[Any]], Size, float], Found]
    nms_iou: float | None
    classes: tuple[str, ...] = CLASSES


@lru_cache(maxsize=32)
def cells(size: Size, strides: Sequence[int]) -> tuple[Floats, Floats]:
    """The upper left corner of each cell and its stride, level after level, rows first.

    Args:
        size: (width, height) of the input; a level has as many cells as touch it.
        strides: of each level.

    Returns:
        (A, 2) x and y in pixels of the input, and (A, 1) strides.
    """
    corners, steps = [], []
    for stride in strides:
        y, x = np.mgrid[: -(-size[1] // stride), : -(-size[0] // stride)]
        corners.append(np.stack([x.ravel(), y.ravel()], axis=1) * stride)
        steps.append(np.full((x.size, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(steps).astype(np.float32)


def around(center: Floats, size: Floats) -> Floats:
    """(K, 2) centers and (K, 2) widths and heights to (K, 4) xyxy."""
    return np.concatenate([center - size / 2, center + size / 2], axis=1)


def decode_yolox(outputs: Sequence[Floats], size: Size, score: float) -> Found:
    """(1, A, 85): center and logarithm of the size in strides, objectness, 80 class scores."""
    raw = outputs[0][0]
    scores = raw[:, 4:5] * raw[:, 5:][:, COCO_COLUMNS]
    cell, class_id = np.nonzero(scores >= score)
    corner, stride = (values[cell] for values in cells(size, (8, 16, 32)))
    xyxy = around(raw[cell, :2] * stride + corner, np.exp(raw[cell, 2:4]) * stride)
    return xyxy, scores[cell, class_id], class_id


def decode_focal(outputs: Sequence[Floats], size: Size, score: float, *, strides: Sequence[int]) -> Found:
    """The head of NanoDet and PicoDet: Generalized Focal Loss (arXiv 2006.04388, section 3.2).

    Outputs are (1, A, 80) scores of each level, then (1, A, 32) logits of each: the distances
    from a cell's center to the four sides are expectations over 0, 1, ..., 7 strides.
    """
    levels = len(strides)
    scores = np.concatenate([level[0][:, COCO_COLUMNS] for level in outputs[:levels]])
    cell, class_id = np.nonzero(scores >= score)
    logits = np.concatenate([level[0] for level in outputs[levels:]])[cell].reshape(-1, 4, BINS)
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    corner, stride = (values[cell] for values in cells(size, strides))
    distance = weight @ np.arange(BINS, dtype=np.float32) / weight.sum(axis=-1) * stride
    center = corner + stride / 2
    xyxy = np.concatenate([center - distance[:, :2], center + distance[:, 2:]], axis=1)
    return xyxy, scores[cell, class_id], class_id


def decode_fastestdet(outputs: Sequence[Floats], size: Size, score: float) -> Found:
    """(1, 85, h, w): objectness, box, 80 class scores; the score is objectness^0.6 * class^0.4."""
    raw = outputs[0][0].reshape(85, -1).T
    scores = raw[:, :1] ** np.float32(0.6) * raw[:, 5:][:, COCO_COLUMNS] ** np.float32(0.4)
    cell, class_id = np.nonzero(scores >= score)
    corner, stride = (values[cell] for values in cells(size, (16,)))
    box_size = np.array(size, np.float32) / (1 + np.exp(-raw[cell, 3:5]))
    return around(np.tanh(raw[cell, 1:3]) * stride + corner, box_size), scores[cell, class_id], class_id


def decode_boxes(outputs: Sequence[NDArray[Any]], size: Size, score: float) -> Found:
    """(K, 5) boxes with scores, and (K,) labels: vehicle, person, bike with its rider."""
    del size
    boxes, labels = outputs
    kept = boxes[:, 4] >= score
    return boxes[kept, :4], boxes[kept, 4], labels[kept].astype(np.int64)


YOLOX_NANO = Peer(  # arXiv 2107.08430; Megvii-BaseDetection/YOLOX
    name="YOLOX-Nano",
    file="yolox_nano_416.onnx",
    layout="corner",
    multiple=32,
    fill=114,
    decode=decode_yolox,
    nms_iou=0.65,
)
PICODET_S = Peer(  # arXiv 2111.00902; PaddlePaddle/PaddleDetection, keep_ratio: False
    name="PicoDet-S",
    file="picodet_s_416.onnx",
    multiple=64,
    fill=114,
    bgr=False,
    mean=(123.675, 116.28, 103.53),
    deviation=(58.395, 57.12, 57.375),
    decode=partial(decode_focal, strides=(8, 16, 32, 64)),
    nms_iou=0.6,
)
NANODET_M = Peer(  # RangiLyu/nanodet, nanodet-m-416, keep_ratio: True
    name="NanoDet-m",
    file="nanodet_m_416.onnx",
    layout="center",
    mean=(103.53, 116.28, 123.675),
    deviation=(57.375, 57.12, 58.395),
    decode=partial(decode_focal, strides=(8, 16, 32)),
    nms_iou=0.6,
)
FASTESTDET = Peer(  # dog-qiuqiu/FastestDet
    name="FastestDet",
    file="fastestdet_352.onnx",
    size=(352, 352),
    deviation=(255, 255, 255),
    decode=decode_fastestdet,
    nms_iou=0.45,
)
INTEL_2003 = Peer(  # openvinotoolkit/open_model_zoo
    name="person-vehicle-bike-2003",
    file="omz/person-vehicle-bike-detection-2003.xml",
    size=(864, 480),
    decode=decode_boxes,
    nms_iou=None,
    classes=("car", "pedestrian", "cyclist"),
)
PEERS = (YOLOX_NANO, PICODET_S, NANODET_M, FASTESTDET, INTEL_2003)
