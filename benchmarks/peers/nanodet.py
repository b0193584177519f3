"""NanoDet-m at 416x416 (RangiLyu/nanodet, config nanodet-m-416, Apache-2.0).

Pixels: BGR minus mean over deviation, keeping the shape (``keep_ratio: True``) in the middle of
black. Published evaluation: NMS at 0.6.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peers import focal_head
from peers.network import PeerNetwork
from peers.placement import Placement, letterbox

SIDE, STRIDES = 416, (8, 16, 32)
MEAN = np.array([103.53, 116.28, 123.675], np.float32)
DEVIATION = np.array([57.375, 57.12, 58.395], np.float32)


def prepare(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Placement]:
    """(H, W, 3) uint8 RGB to (416, 416, 3) float32."""
    square, placement = letterbox(pixels, SIDE, 0, centred=True)
    return (square[..., ::-1] - MEAN) / DEVIATION, placement


def decode(outputs: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Six outputs to (3549, 4) xyxy in pixels of the input and (3549, 80) scores."""
    return focal_head.decode(outputs, SIDE, STRIDES)


NANODET_M = PeerNetwork("NanoDet-m", "nanodet_m_416.onnx", prepare, decode, nms_iou=0.6)
