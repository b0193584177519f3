"""SSD's parts: default boxes, matching, hard-negative mining, loss, decoding.

Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg: "SSD: Single Shot MultiBox Detector",
arXiv 1512.02325, and its Caffe code. A network adds its feature maps and nothing else.
Boxes, default boxes too, are xyxy in pixels of the input.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.detectors.box_deltas import clip, deltas_between, move
from squeezedet.detectors.geometry import paired_iou, to_corners
from squeezedet.detectors.network import Config, DetectionNetwork, TensorTargets, alone
from squeezedet.detectors.normalise import SubtractMean
from squeezedet.runtime.postprocess import MAX_CANDIDATES, Selection
from squeezedet.runtime.preprocess import InputRule

MEAN_RGB = (123.0, 117.0, 104.0)
"""Caffe's ImageNet mean, (104, 117, 123) in its own order BGR."""
VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""By which deltas are divided: of centre x, centre y, width, height."""
MATCH_IOU = 0.5
NEGATIVES_PER_POSITIVE = 3
BACKGROUND = 0
"""Index of the background among the class logits; class id k has the index k + 1."""

# ------------------------------------------------------------- default boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMap:
    """The default boxes of one feature map; sizes in pixels of the input.

    Attributes:
        columns: cells from left to right.
        rows: cells from top to bottom.
        step: (x, y) distance between the centres of neighbouring cells; the first one lies
            half a step inside.
        min_size: side of the first square; the second one has sqrt(min_size * max_size).
        max_size: the next map's ``min_size``.
        ratios: width / height of two more boxes each: r and 1 / r.
    """

    columns: int
    rows: int
    step: tuple[float, float]
    min_size: float
    max_size: float
    ratios: tuple[float, ...]

    @property
    def shapes(self) -> tuple[tuple[float, float], ...]:
        """(width, height) of the boxes of a cell, in the order of the Caffe code."""
        middle = math.sqrt(self.min_size * self.max_size)
        shapes = [(self.min_size, self.min_size), (middle, middle)]
        for ratio in self.ratios:
            long, short = self.min_size * math.sqrt(ratio), self.min_size / math.sqrt(ratio)
            shapes += [(long, short), (short, long)]
        return tuple(shapes)


def default_boxes(maps: Sequence[FeatureMap]) -> Tensor:
    """(A, 4) xyxy: map by map, by row, column and box; not cut at the edges."""
    boxes = []
    for m in maps:
        x = (torch.arange(m.columns, dtype=torch.float64) + 0.5) * m.step[0]
        y = (torch.arange(m.rows, dtype=torch.float64) + 0.5) * m.step[1]
        shapes = torch.tensor(m.shapes, dtype=torch.float64)
        cells = (m.rows, m.columns, len(shapes))
        centre = [x.view(1, -1, 1).expand(cells), y.view(-1, 1, 1).expand(cells)]
        boxes.append(torch.stack([*centre, *shapes.T.unsqueeze(1).unsqueeze(1).expand(2, *cells)]))
    centre_form = torch.cat([b.flatten(1) for b in boxes], dim=1).T
    return to_corners(centre_form).float()


def encode(boxes: Tensor, defaults: Tensor) -> Tensor:
    """(..., 4) boxes and (..., 4) default boxes, both xyxy, to (..., 4) deltas over variances."""
    return deltas_between(defaults, boxes) / boxes.new_tensor(VARIANCES)


def decode_boxes(deltas: Tensor, defaults: Tensor) -> Tensor:
    """(..., 4) deltas and (..., 4) xyxy default boxes to (..., 4) xyxy boxes: undoes ``encode``."""
    return move(defaults, deltas * deltas.new_tensor(VARIANCES))


# ------------------------------------------------------------------- targets


@dataclass(frozen=True, slots=True)
class Targets(TensorTargets):
    """What each default box of a batch shall answer.

    Attributes:
        label: (N, A) int64, 0 for background, class id + 1 for an object.
        ignored: (N, A) bool, the box learns no object and is not mined as background.
        deltas: (N, A, 4) float32, 0 where there is no object.
    """

    label: Tensor
    ignored: Tensor
    deltas: Tensor


def match(overlaps: Tensor, threshold: float = MATCH_IOU) -> Tensor:
    """Which object each default box learns (section 2.2).

    First the best pair of all, then the best of the boxes and objects that are left, until
    every object has one box that it overlaps; then every other box of which the best IoU
    reaches the threshold learns that object.

    Args:
        overlaps: (A, n) IoU of each default box and each object.
        threshold: IoU of the further boxes.

    Returns:
        (A,) index of the object, -1 for none.
    """
    count, objects = overlaps.shape
    owner = torch.full((count,), -1, dtype=torch.int64)
    if not objects:
        return owner
    best, their = overlaps.max(dim=1)
    owner[best >= threshold] = their[best >= threshold]
    left = overlaps.clone()
    for _ in range(min(count, objects)):
        box, mine = divmod(int(left.argmax()), objects)
        if left[box, mine] <= 0:
            break
        owner[box] = mine
        left[box] = left[:, mine] = -1
    return owner


def assign(
    defaults: Tensor, boxes: Tensor, classes: Tensor, regions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The targets of one image, in the order of the fields of ``Targets``.

    Args:
        defaults: (A, 4) xyxy.
        boxes: (n, 4) xyxy of the objects; none is empty.
        classes: (n,) class ids.
        regions: (m, 4) xyxy of areas without loss: a default box that would learn one if it
            were an object, or that lies mostly inside one, is no background.
    """
    owner = match(paired_iou(defaults[:, None], boxes[None]))
    positive = owner >= 0
    label = torch.full((len(defaults),), BACKGROUND, dtype=torch.int64)
    deltas = torch.zeros(len(defaults), 4)
    label[positive] = classes[owner[positive]] + 1
    deltas[positive] = encode(boxes[owner[positive]], defaults[positive])

    ignored = match(paired_iou(defaults[:, None], regions[None])) >= 0
    shared = (
        torch.minimum(defaults[:, None, 2:], regions[None, :, 2:])
        - torch.maximum(defaults[:, None, :2], regions[None, :, :2])
    ).clamp(min=0)
    covered = shared.prod(-1) / (defaults[:, None, 2:] - defaults[:, None, :2]).prod(-1)
    ignored |= (covered > 0.5).any(dim=1)
    return label, ignored & ~positive, deltas


# ---------------------------------------------------------------------- loss


def hard_negatives(background_loss: Tensor, positive: Tensor, candidates: Tensor) -> Tensor:
    """The backgrounds that are learnt: of each image the worst ones, three for each positive.

    Args:
        background_loss: (N, A) -log p(background).
        positive: (N, A) bool, the box learns an object.
        candidates: (N, A) bool, the box may be taken.

    Returns:
        (N, A) bool; of equals the first ones. An image without positives gives none.
    """
    worst = background_loss.masked_fill(~candidates, -torch.inf).sort(
        dim=1, descending=True, stable=True
    )
    rank = worst.indices.argsort(dim=1)
    wanted = NEGATIVES_PER_POSITIVE * positive.sum(dim=1, keepdim=True)
    return candidates & (rank < wanted)


def multibox_loss(
    deltas: Tensor,
    logits: Tensor,
    targets: Targets,
    total: Callable[[Tensor], Tensor] = alone,
) -> dict[str, Tensor]:
    """Section 2.2, equation 1: smooth L1 and softmax, over the matches of the whole batch.

    Args:
        deltas: (N, A, 4).
        logits: (N, A, C + 1), the background first.
        targets: of the batch.
        total: ``DetectionNetwork.sum_over_processes``.
    """
    positive = targets.label != BACKGROUND
    matches = total(positive.sum()).clamp(min=1)
    box_sum = F.smooth_l1_loss(deltas[positive], targets.deltas[positive], reduction="sum")
    entropy = F.cross_entropy(logits.flatten(0, 1), targets.label.flatten(), reduction="none")
    entropy = entropy.view_as(targets.label)
    mined = hard_negatives(entropy.detach(), positive, ~positive & ~targets.ignored)
    return {"class": entropy[positive | mined].sum() / matches, "box": box_sum / matches}


# ------------------------------------------------------------------- network


def voc_selection(classes: int) -> Selection:
    """How the Caffe code chooses for VOC: score above 0.01, NMS at 0.45, the 200 best.

    It lets the 400 best of each class enter NMS, where a default box may stand for several
    classes. Here a box stands for its best class, and the limit is one over all classes: as
    many as 400 for each class, up to what NMS takes.
    """
    candidates = min(400 * classes, MAX_CANDIDATES)
    return Selection(candidates=candidates, top_n=200, nms_iou=0.45, score=0.01)


class SSD(DetectionNetwork):
    """A detector whose boxes are deltas of default boxes on several feature maps.

    A network gives ``features``; this class adds the 3x3 predictors of each map.

    Args:
        config: with the class names.
        size: (width, height) of the input; no other one is taken.
        maps: the default boxes of each feature map.
        channels: of each feature map.
    """

    default_boxes: Tensor

    def __init__(
        self,
        config: Config,
        size: tuple[int, int],
        maps: Sequence[FeatureMap],
        channels: Sequence[int],
    ) -> None:
        super().__init__()
        self.config = config
        self.input_rule = InputRule(*size, fixed=True)
        self.selection = voc_selection(len(config.classes))
        self.normalise: nn.Module = SubtractMean(MEAN_RGB)
        outputs = len(config.classes) + 1
        per_cell = [len(m.shapes) for m in maps]
        pairs = list(zip(channels, per_cell, strict=True))
        self.box_heads = nn.ModuleList(nn.Conv2d(c, k * 4, 3, padding=1) for c, k in pairs)
        self.class_heads = nn.ModuleList(nn.Conv2d(c, k * outputs, 3, padding=1) for c, k in pairs)
        self.register_buffer("default_boxes", default_boxes(maps), persistent=False)

    @abstractmethod
    def features(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB pixels minus the mean to the feature maps, finest first."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            images: (N, 3, H, W) RGB pixels from 0 to 255, any dtype, of the network's size.

        Returns:
            (N, A, 4) deltas, (N, A, C + 1) class logits with the background first.

        Raises:
            ValueError: the images have another size.
        """
        rule = self.input_rule
        if tuple(images.shape[-2:]) != (rule.height, rule.width):
            raise ValueError(
                f"this network takes {rule.width}x{rule.height} pixels, "
                f"not {images.shape[-1]}x{images.shape[-2]}"
            )
        maps = self.features(self.normalise(images.to(self.default_boxes.dtype)))
        outputs = len(self.config.classes) + 1
        deltas = [_by_box(head(m), 4) for head, m in zip(self.box_heads, maps, strict=True)]
        logits = [_by_box(head(m), outputs) for head, m in zip(self.class_heads, maps, strict=True)]
        return torch.cat(deltas, dim=1), torch.cat(logits, dim=1)

    def targets(
        self,
        boxes: Sequence[Tensor],
        classes: Sequence[Tensor],
        regions: Sequence[Tensor],
        image_size: tuple[int, int],
    ) -> Targets:
        """Give the objects of a batch to default boxes; see ``DetectionNetwork.targets``.

        Raises:
            ValueError: the image size is not the network's.
        """
        rule = self.input_rule
        if tuple(image_size) != (rule.width, rule.height):
            raise ValueError(f"this network takes {rule.width}x{rule.height}, not {image_size}")
        defaults = self.default_boxes.cpu().float()
        images = []
        for b, c, r in zip(boxes, classes, regions, strict=True):
            solid = (b[:, 2:] > b[:, :2]).all(dim=1)  # a box without area has no logarithm
            images.append(assign(defaults, b[solid], c[solid], r))
        return Targets(*(torch.stack(field) for field in zip(*images, strict=True)))

    def loss(self, raw: tuple[Tensor, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The terms ``class`` and ``box`` of ``multibox_loss``."""
        deltas, logits = raw
        return multibox_loss(deltas.float(), logits.float(), targets, self.sum_over_processes)

    def decode(self, raw: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(N, A, 4) xyxy boxes inside the image, (N, A) scores, (N, A) class ids.

        The score is the probability of the best class that is not the background.
        """
        deltas, logits = raw
        rule = self.input_rule
        boxes = clip(decode_boxes(deltas, self.default_boxes), (rule.width, rule.height))
        score, class_id = logits.softmax(dim=-1)[..., 1:].max(dim=-1)
        return boxes, score, class_id


def _by_box(predicted: Tensor, values: int) -> Tensor:
    """(N, K * values, H, W) to (N, H * W * K, values), in the order of the default boxes."""
    return predicted.permute(0, 2, 3, 1).reshape(len(predicted), -1, values)
