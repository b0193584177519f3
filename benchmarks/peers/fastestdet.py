"""FastestDet at 352x352 (dog-qiuqiu/FastestDet, BSD-3).

Pixels: BGR over 255, stretched. One level of 22x22 cells; the graph gives objectness, four box
numbers and 80 class scores (sigmoid and softmax taken). The published score is
objectness^0.6 * class^0.4; published evaluation: NMS at 0.45.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peers.grid import around, cells
from peers.network import PeerNetwork
from peers.placement import Placement, stretch

SIDE, STRIDE = 352, 16


def prepare(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Placement]:
    """(H, W, 3) uint8 RGB to (352, 352, 3) float32."""
    square, placement = stretch(pixels, SIDE)
    return np.divide(square[..., ::-1], 255, dtype=np.float32), placement


def decode(outputs: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(1, 85, 22, 22) to (484, 4) xyxy in pixels of the input and (484, 80) scores."""
    raw = outputs[0][0].reshape(85, -1).T
    corner, stride = cells(SIDE, (STRIDE,))
    size = SIDE / (1 + np.exp(-raw[:, 3:5]))
    score = raw[:, :1] ** np.float32(0.6) * raw[:, 5:] ** np.float32(0.4)
    return around(np.tanh(raw[:, 1:3]) * stride + corner, size), score


FASTESTDET = PeerNetwork("FastestDet", "fastestdet_352.onnx", prepare, decode, nms_iou=0.45)
