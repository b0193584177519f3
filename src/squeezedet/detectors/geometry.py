"""Geometry of xyxy boxes on tensors, where gradients flow; for NumPy see ``boxes.py``."""

from __future__ import annotations

import torch
from torch import Tensor


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) and (..., 4) xyxy boxes to (...) IoU of each pair."""
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(
        min=0
    )
    shared_area = shared.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared_area
    return shared_area / union.clamp(min=1e-9)


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) and (..., 4) xyxy boxes to (...) generalised IoU of each pair (arXiv 1902.09630)."""
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    area_a, area_b = (a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1)
    overlap = paired_iou(a, b)
    union = (area_a + area_b) / (1 + overlap)
    return overlap - (hull - union) / hull.clamp(min=1e-9)


def to_centre(xyxy: Tensor) -> Tensor:
    """(..., 4) xyxy to (..., 4) centre x, centre y, width, height."""
    low, high = xyxy[..., :2], xyxy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def to_corners(centre: Tensor) -> Tensor:
    """(..., 4) centre x, centre y, width, height to (..., 4) xyxy."""
    middle, half = centre[..., :2], centre[..., 2:] / 2
    return torch.cat([middle - half, middle + half], dim=-1)
