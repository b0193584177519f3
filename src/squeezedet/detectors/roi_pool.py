"""RoI max pooling: the part of a feature map under each box, as a map of fixed size.

Girshick: "Fast R-CNN", arXiv 1504.08083, section 2.1, with the rounding of its
published code: corners are rounded to cells, both corner cells belong to the
box, and bins overlap where cells do not divide evenly. ONNX calls it MaxRoiPool.
"""

from __future__ import annotations

import torch
from torch import Tensor


def roi_max_pool(features: Tensor, boxes: Tensor, bins: int, stride: int) -> Tensor:
    """Pool the features of one image under each box; the gradient goes to the features.

    Every bin is a rectangle of cells; its maximum is that of four overlapping rectangles
    whose sides are powers of two, and the maxima of those are made once for all boxes.

    Args:
        features: (C, H, W).
        boxes: (R, 4) xyxy in pixels of the image, inside it.
        bins: rows and columns of the result.
        stride: pixels for each cell of the feature map.

    Returns:
        (R, C, bins, bins); 0 where a bin lies beyond the map.
    """
    if torch.onnx.is_in_onnx_export():
        return _onnx_max_roi_pool(features, boxes, bins, stride)
    channels, height, width = features.shape
    down, across = _levels(height, bins), _levels(width, bins)
    tables = torch.stack(
        [table for row in _doubled(features, down, 1) for table in _doubled(row, across, 2)]
    )
    cells = tables.permute(0, 2, 3, 1).reshape(-1, channels)

    y1, y2 = (y[:, :, None] for y in _edges(boxes[:, 1], boxes[:, 3], height, bins, stride))
    x1, x2 = (x[:, None, :] for x in _edges(boxes[:, 0], boxes[:, 2], width, bins, stride))
    y_level, x_level = _level(y2 - y1, down), _level(x2 - x1, across)
    table = (y_level * across + x_level) * height
    rows = y1.clamp(max=height - 1), (y2 - (1 << y_level)).clamp(min=0)
    columns = x1.clamp(max=width - 1), (x2 - (1 << x_level)).clamp(min=0)
    corners = [cells[(table + y) * width + x] for y in rows for x in columns]
    pooled = torch.maximum(
        torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3])
    )
    empty = (y2 <= y1) | (x2 <= x1)
    return pooled.masked_fill(empty[..., None], 0).permute(0, 3, 1, 2)


def _levels(cells: int, bins: int) -> int:
    """How many powers of two fit into the longest bin of a box that ends within the image.

    Up to ``bins`` cells of such a box may lie beyond the map.
    """
    longest = min(cells, cells // bins + 3)
    return longest.bit_length()


def _doubled(x: Tensor, levels: int, dim: int) -> list[Tensor]:
    """[x, maxima of 2 neighbours, of 4, of 8, ...]; those that reach over the end are never read.

    Entry i holds the maximum of cells i to i + 2^level - 1.
    """
    tables = [x]
    for level in range(levels - 1):
        tables.append(torch.maximum(tables[-1], tables[-1].roll(-(1 << level), dim)))
    return tables


def _level(length: Tensor, levels: int) -> Tensor:
    """floor(log2(length)) of integers, 0 for those below 2."""
    return sum((length >= 1 << level).long() for level in range(1, levels)) + length.new_zeros(())


def _edges(low: Tensor, high: Tensor, cells: int, bins: int, stride: int) -> tuple[Tensor, Tensor]:
    """(R,) sides of boxes in pixels to (R, bins) first cells and ends (exclusive) of the bins."""
    first = (low.float() / stride + 0.5).floor()
    last = (high.float() / stride + 0.5).floor()
    step = ((last - first + 1).clamp(min=1) / bins)[:, None]
    k = torch.arange(bins, device=low.device)
    start = (k * step).floor() + first[:, None]
    end = ((k + 1) * step).ceil() + first[:, None]
    return start.clamp(0, cells).long(), end.clamp(0, cells).long()


def _onnx_max_roi_pool(features: Tensor, boxes: Tensor, bins: int, stride: int) -> Tensor:
    """The same as one node of the graph; every box has the index of its image in front."""
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    return torch.onnx.ops.symbolic(
        "MaxRoiPool",
        (features[None], rois),
        attrs={"pooled_shape": [bins, bins], "spatial_scale": 1 / stride},
        dtype=features.dtype,
        shape=(boxes.shape[0], features.shape[0], bins, bins),
        version=18,
    )
