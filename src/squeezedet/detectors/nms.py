"""Non-maximum suppression inside a network, where shapes may not depend on pixels.

Where the runtime chooses the boxes to report, ``boxes.py`` does; this is for networks that
go on computing with what is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from squeezedet.detectors.geometry import paired_iou


def nms(boxes: Tensor, score: Tensor, iou_threshold: float, count: int) -> Tensor:
    """The first ``count`` boxes that greedy non-maximum suppression keeps.

    Args:
        boxes: (B, 4) xyxy by descending score; at least ``count`` of them are kept.
        score: (B,).
        iou_threshold: IoU above which the lower box is dropped.
        count: how many are wanted.

    Returns:
        (count,) indices.
    """
    if torch.onnx.is_in_onnx_export():
        limit, threshold = torch.tensor([count]), torch.tensor([iou_threshold])
        kept = torch.onnx.ops.symbolic(
            "NonMaxSuppression",
            (boxes[None], score[None, None], limit, threshold),
            dtype=torch.int64,
            shape=(count, 3),
            version=18,
        )
        return kept[:, 2]
    alive, picks = torch.ones_like(score, dtype=torch.bool), []
    for _ in range(count):
        pick = alive.byte().argmax(0, keepdim=True)  # the first that is alive
        alive = alive & (paired_iou(boxes, boxes[pick]) <= iou_threshold)
        alive = alive.index_fill(0, pick, False)
        picks.append(pick)
    return torch.cat(picks)


def spare_boxes(count: int, device: torch.device) -> Tensor:
    """(count, 4) unit boxes to the left of the image; none touches another."""
    x1 = -2.0 * torch.arange(1, count + 1, device=device)
    zero = torch.zeros_like(x1)
    return torch.stack([x1, zero, x1 + 1, zero + 1], dim=1)
