"""Which anchor learns which object: the targets of ConvDet (section 3.3 of the SqueezeDet paper).

Boxes are xyxy in network-input pixels, anchors are centre, width, height.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from squeezedet.detectors.geometry import paired_iou, to_centre, to_corners
from squeezedet.detectors.network import TensorTargets


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """How objects are given to anchors.

    Attributes:
        anchors_per_object: how many anchors may learn one object.
        match_iou: the best anchor always learns its object; a further one does when its IoU
            is above this share of the best one's.
        ignore_iou: an anchor above this IoU with an object it does not learn is no background.
    """

    anchors_per_object: int = 8
    match_iou: float = 0.75
    ignore_iou: float = 0.5


@dataclass(frozen=True, slots=True)
class Targets(TensorTargets):
    """What each anchor of a batch shall answer.

    Attributes:
        positive: (N, A) bool, the anchor learns an object.
        ignored: (N, A) bool, the anchor has no confidence loss.
        class_id: (N, A) int64.
        deltas: (N, A, 4) float32 (eq. 3).
        boxes: (N, A, 4) float32 xyxy of the object.
    """

    positive: Tensor
    ignored: Tensor
    class_id: Tensor
    deltas: Tensor
    boxes: Tensor


def assign(
    anchors: Tensor, boxes: Tensor, classes: Tensor, regions: Tensor, rule: Assignment
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The targets of one image, in the order of the fields of ``Targets``.

    Args:
        anchors: (A, 4) centre, width, height.
        boxes: (n, 4) xyxy of the objects; none is empty.
        classes: (n,) class ids.
        regions: (m, 4) xyxy of areas without confidence loss.
        rule: how many anchors an object gets, and which are left in peace.
    """
    corners = to_corners(anchors)
    overlaps = paired_iou(boxes[:, None], corners[None])  # (n, A)
    centre_form = to_centre(boxes)
    owner = _owners(anchors, centre_form, overlaps, rule)
    positive = owner >= 0
    mine, their = owner[positive], anchors[positive]
    class_id = torch.zeros(len(anchors), dtype=torch.int64)
    deltas, target_boxes = torch.zeros(len(anchors), 4), torch.zeros(len(anchors), 4)
    class_id[positive] = classes[mine]
    target_boxes[positive] = boxes[mine]
    shift = (centre_form[mine, :2] - their[:, :2]) / their[:, 2:]
    deltas[positive] = torch.cat([shift, (centre_form[mine, 2:] / their[:, 2:]).log()], dim=1)

    ignored = (overlaps > rule.ignore_iou).any(dim=0) | _in_regions(corners, regions, rule)
    return positive, ignored & ~positive, class_id, deltas, target_boxes


def _owners(anchors: Tensor, centre_form: Tensor, overlaps: Tensor, rule: Assignment) -> Tensor:
    """(A,) index of the object that each anchor learns, -1 for none.

    First every object, in order, takes the free anchor of largest IoU; one that
    overlaps no free anchor takes the nearest by squared distance of (cx, cy, w, h).
    Then, up to ``anchors_per_object``, free anchors that overlap an object more than
    any other, and at least ``match_iou`` times as well as its best one, learn it too.
    No anchor learns two objects; objects beyond the number of anchors learn nothing.
    """
    owner = torch.full((len(anchors),), -1, dtype=torch.int64)
    for i, overlap in enumerate(overlaps[: len(anchors)]):
        free = owner < 0
        best = int(torch.where(free, overlap, -1).argmax())
        if overlap[best] <= 0 or not free[best]:
            distance = (anchors - centre_form[i]).square().sum(1)
            best = int(torch.where(free, distance, torch.inf).argmin())
        owner[best] = i
    more = min(rule.anchors_per_object - 1, len(anchors))
    if more and len(overlaps):
        best_object = overlaps.argmax(dim=0)
        for i, overlap in enumerate(overlaps):
            enough = overlap > rule.match_iou * overlap.max()
            candidates = (owner < 0) & (best_object == i) & enough
            rank = torch.where(candidates, overlap, -1).topk(more)
            owner[rank.indices[rank.values > 0]] = i
    return owner


def _in_regions(corners: Tensor, regions: Tensor, rule: Assignment) -> Tensor:
    """(A,) True for an anchor mostly inside a region, or that would learn it as an object."""
    if not len(regions):
        return torch.zeros(len(corners), dtype=torch.bool)
    shared = (
        torch.minimum(corners[:, None, 2:], regions[None, :, 2:])
        - torch.maximum(corners[:, None, :2], regions[None, :, :2])
    ).clamp(min=0)
    covered = shared.prod(-1) / (corners[:, 2:] - corners[:, :2]).prod(-1)[:, None]
    overlaps = paired_iou(corners[:, None], regions[None])  # (A, m)
    best = overlaps.amax(dim=0).clamp(min=1e-6)
    return ((covered > 0.5) | (overlaps >= rule.match_iou * best)).any(dim=1)
