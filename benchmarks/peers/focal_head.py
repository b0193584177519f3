"""Boxes as four distributions, the head that NanoDet and PicoDet share.

Generalized Focal Loss (arXiv 2006.04388, section 3.2): the distances from a cell's centre
to the four sides are expectations over 0, 1, ..., 7 strides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peers.grid import cells

BINS = 8


def decode(
    outputs: Sequence[NDArray[np.float32]], side: int, strides: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The graph's outputs to boxes and scores.

    Args:
        outputs: of each level (1, A, 80) scores, sigmoid taken; then of each level (1, A, 32)
            logits: left, top, right, bottom, 8 each.
        side: of the input in pixels.
        strides: of the levels.

    Returns:
        (A, 4) xyxy in pixels of the input and (A, 80) scores.
    """
    levels = len(strides)
    score = np.concatenate([level[0] for level in outputs[:levels]])
    logits = np.concatenate([level[0] for level in outputs[levels:]]).reshape(-1, 4, BINS)
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    corner, stride = cells(side, strides)
    distance = weight @ np.arange(BINS, dtype=np.float32) / weight.sum(axis=-1) * stride
    centre = corner + stride / 2
    xyxy = np.concatenate([centre - distance[:, :2], centre + distance[:, 2:]], axis=1)
    return xyxy, score
