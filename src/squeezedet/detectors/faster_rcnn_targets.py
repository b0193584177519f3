"""What Faster R-CNN's two stages learn of a batch: who learns what, and the losses.

Boxes are xyxy in network-input pixels. Which anchors and boxes are drawn is up to torch's random
numbers of the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from squeezedet.detectors.box_deltas import clip, deltas_between
from squeezedet.detectors.geometry import paired_iou
from squeezedet.detectors.network import TensorTargets

# The first stage learns from up to 256 anchors of an image, half of them objects at most.
ANCHORS_LEARNT, ANCHORS_OBJECT = 256, 128
ANCHOR_POSITIVE_IOU, ANCHOR_NEGATIVE_IOU = 0.7, 0.3
ANCHOR_BETA = 1 / 9  # of smooth L1: 1 / sigma^2, sigma = 3
# The second stage learns from up to 128 boxes of an image, a quarter of them objects at most.
ROIS_LEARNT, ROIS_OBJECT = 128, 32
ROI_OBJECT_IOU = 0.5
REGION_SHARE = 0.5  # a box with more than this share inside a region is no background


@dataclass(frozen=True, slots=True)
class Targets(TensorTargets):
    """What a batch shall answer. Rows that only fill up have no area and class -1.

    Attributes:
        label: (N, A) int64 of the anchors: 1 object, 0 background, -1 neither.
        deltas: (N, A, 4) float32 from the anchor to its object.
        boxes: (N, M, 4) float32 xyxy of the objects.
        classes: (N, M) int64.
        regions: (N, P, 4) float32 xyxy.
    """

    label: Tensor
    deltas: Tensor
    boxes: Tensor
    classes: Tensor
    regions: Tensor


def padded(rows: Sequence[Tensor], value: int) -> Tensor:
    """(n_i, ...) of each image to (N, max(1, n_i), ...); ``value`` fills up."""
    length = max([1, *(len(r) for r in rows)])
    out = rows[0].new_full((len(rows), length, *rows[0].shape[1:]), value)
    for i, r in enumerate(rows):
        out[i, : len(r)] = r
    return out


def assign(
    anchors: Tensor, boxes: Tensor, regions: Tensor, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The labels and deltas of one image's anchors (section 3.1.2).

    An anchor is an object's when its IoU is at least 0.7, or the object's highest; background
    when its IoU with every object is below 0.3. Anchors that leave the image learn nothing.

    Args:
        anchors: (A, 4) xyxy.
        boxes: (n, 4) xyxy of the objects; none is empty.
        regions: (m, 4) xyxy; an anchor mostly inside one is no background.
        image_size: (width, height).
    """
    inside = (clip(anchors, image_size) == anchors).all(1)
    label = torch.where(inside & ~in_regions(anchors, regions), 0, -1)
    deltas = torch.zeros_like(anchors)
    if len(boxes):
        overlap = paired_iou(boxes[:, None], anchors[None]) * inside  # (n, A)
        best, owner = overlap.max(0)
        highest = overlap.amax(1, keepdim=True)
        positive = (best >= ANCHOR_POSITIVE_IOU) | ((overlap == highest) & (highest > 0)).any(0)
        label[best >= ANCHOR_NEGATIVE_IOU] = -1
        label[positive] = 1
        deltas[positive] = deltas_between(anchors[positive], boxes[owner[positive]])
    return label, deltas


def in_regions(boxes: Tensor, regions: Tensor) -> Tensor:
    """(B, 4) boxes and (m, 4) regions to (B,) True where a box lies mostly inside a region."""
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    size = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return (shared > REGION_SHARE * size[:, None]).any(1)


class Rois(NamedTuple):
    """Boxes of one image that the second stage learns: (R, 4) xyxy, (R, 4) objects, (R,) labels.

    Label 0 is background, whose object means nothing; label c + 1 is class c.
    """

    boxes: Tensor
    objects: Tensor
    label: Tensor


@torch.no_grad()
def sample_rois(proposals: Tensor, boxes: Tensor, classes: Tensor, regions: Tensor) -> Rois:
    """Draw the boxes from which the second stage learns one image (Fast R-CNN, section 2.3).

    Args:
        proposals: (R, 4) xyxy; the objects themselves are added.
        boxes: (M, 4) xyxy of the objects.
        classes: (M,), -1 for rows that only fill up.
        regions: (P, 4) xyxy; a box mostly inside one is no background.
    """
    rois = torch.cat([proposals, boxes[classes >= 0]])
    best, owner = paired_iou(rois[:, None], boxes[None]).max(1)
    is_object = best >= ROI_OBJECT_IOU
    objects = draw(is_object, ROIS_OBJECT)
    background = draw(~is_object & ~in_regions(rois, regions), ROIS_LEARNT - len(objects))
    chosen = torch.cat([objects, background])
    label = classes[owner[chosen]] + 1
    label[len(objects) :] = 0
    return Rois(rois[chosen], boxes[owner[chosen]], label)


def draw(mask: Tensor, count: int) -> Tensor:
    """Up to ``count`` indices where a (B,) mask is True, drawn without repetition."""
    index = mask.nonzero().flatten()
    return index[torch.randperm(len(index))[:count].to(index.device)]


# -------------------------------------------------------------------- losses


def anchor_losses(
    logits: Tensor, deltas: Tensor, label: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """The first stage's two terms for one image: eq. 1 over the anchors that are drawn.

    Args:
        logits: (A, 2).
        deltas: (A, 4).
        label: (A,) 1, 0 or -1.
        wanted: (A, 4).
    """
    positive = draw(label == 1, ANCHORS_OBJECT)
    chosen = torch.cat([positive, draw(label == 0, ANCHORS_LEARNT - len(positive))])
    count = max(1, len(chosen))
    classes = F.cross_entropy(logits[chosen], label[chosen], reduction="sum")
    box = F.smooth_l1_loss(deltas[positive], wanted[positive], reduction="sum", beta=ANCHOR_BETA)
    return classes / count, box / count


def roi_losses(logits: Tensor, deltas: Tensor, rois: Rois, spread: Tensor) -> tuple[Tensor, Tensor]:
    """The second stage's two terms for one image (Fast R-CNN, eq. 1).

    Args:
        logits: (R, 1 + C).
        deltas: (R, 1 + C, 4).
        rois: what they were computed for.
        spread: (4,) by which deltas are divided.
    """
    count = max(1, len(rois.label))
    positive = (rois.label > 0).nonzero().flatten()
    wanted = deltas_between(rois.boxes[positive], rois.objects[positive]) / spread
    mine = deltas[positive, rois.label[positive]]
    classes = F.cross_entropy(logits, rois.label, reduction="sum")
    return classes / count, F.smooth_l1_loss(mine, wanted, reduction="sum") / count
