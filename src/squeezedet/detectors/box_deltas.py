"""Boxes as deltas from other boxes: R-CNN's coding (arXiv 1506.01497, eq. 2). Boxes are xyxy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from squeezedet.detectors.geometry import to_centre, to_corners

MAX_LOG_SIZE = math.log(1000 / 16)  # a side grows 62.5 times at most


def move(boxes: Tensor, deltas: Tensor) -> Tensor:
    """(..., 4) xyxy boxes and (..., 4) deltas to (..., 4) xyxy boxes (eq. 2, solved for x)."""
    centre = to_centre(boxes)
    size = centre[..., 2:] * deltas[..., 2:].clamp(max=MAX_LOG_SIZE).exp()
    return to_corners(torch.cat([centre[..., :2] + deltas[..., :2] * centre[..., 2:], size], -1))


def deltas_between(boxes: Tensor, wanted: Tensor) -> Tensor:
    """(..., 4) xyxy boxes and (..., 4) xyxy objects to the (..., 4) deltas (eq. 2)."""
    mine, theirs = to_centre(boxes), to_centre(wanted)
    shift = (theirs[..., :2] - mine[..., :2]) / mine[..., 2:]
    return torch.cat([shift, (theirs[..., 2:] / mine[..., 2:]).log()], dim=-1)


def clip(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """(..., 4) xyxy boxes cut to the image of (width, height)."""
    x, y = boxes[..., 0::2].clamp(0, image_size[0]), boxes[..., 1::2].clamp(0, image_size[1])
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)
