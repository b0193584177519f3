"""YOLOX-Nano at 416x416 (arXiv 2107.08430; Megvii-BaseDetection/YOLOX, Apache-2.0).

Pixels: BGR, 0 to 255, letterboxed at the upper left on grey 114. The graph gives, for each cell
of strides 8, 16 and 32, the centre and the logarithm of the size in strides, objectness and 80
class scores (sigmoids taken). Published evaluation: NMS at 0.65.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peers.grid import around, cells
from peers.network import PeerNetwork
from peers.placement import Placement, letterbox

SIDE, STRIDES, GREY = 416, (8, 16, 32), 114


def prepare(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Placement]:
    """(H, W, 3) uint8 RGB to (416, 416, 3) float32."""
    square, placement = letterbox(pixels, SIDE, GREY, centred=False)
    return square[..., ::-1].astype(np.float32), placement


def decode(outputs: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(1, 3549, 85) to (3549, 4) xyxy in pixels of the input and (3549, 80) scores."""
    raw = outputs[0][0]
    corner, stride = cells(SIDE, STRIDES)
    xyxy = around(raw[:, :2] * stride + corner, np.exp(raw[:, 2:4]) * stride)
    return xyxy, raw[:, 4:5] * raw[:, 5:]


YOLOX_NANO = PeerNetwork("YOLOX-Nano", "yolox_nano_416.onnx", prepare, decode, nms_iou=0.65)
