"""PicoDet-S (ESNet) at 416x416 (arXiv 2111.00902; PaddlePaddle/PaddleDetection).

Pixels: RGB minus mean over deviation, stretched to the square (``keep_ratio: False``). Four levels,
cells offset by one half. Published evaluation: NMS at 0.6.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peers import focal_head
from peers.network import PeerNetwork
from peers.placement import Placement, stretch

SIDE, STRIDES = 416, (8, 16, 32, 64)
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)


def prepare(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Placement]:
    """(H, W, 3) uint8 RGB to (416, 416, 3) float32."""
    square, placement = stretch(pixels, SIDE)
    return (square - MEAN) / DEVIATION, placement


def decode(outputs: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Eight outputs to (3598, 4) xyxy in pixels of the input and (3598, 80) scores."""
    return focal_head.decode(outputs, SIDE, STRIDES)


PICODET_S = PeerNetwork("PicoDet-S", "picodet_s_416.onnx", prepare, decode, nms_iou=0.6)
