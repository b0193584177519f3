"""Faster R-CNN (Ren et al., arXiv 1506.01497), top to bottom, with VGG16 or AlexNet and the constants of its code.

What differs from py-faster-rcnn, on purpose: boxes are continuous, no pixel is added; a proposal answers with its best
class only; log sizes are clamped; proposals have at least 10 pixels, not 16, as images are not enlarged. A batch may
have any size; the exported graph holds one image. Boxes are xyxy in network-input pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.models.backbones import VGG16
from squeezedet.models.layers import (
    SubtractMean,
    area,
    clip,
    deltas_between,
    kaiming_normal,
    move,
    nms,
    paired_intersection,
    paired_iou,
    spare_boxes,
    to_corners,
)
from squeezedet.models.network import DetectionNetwork, Labels, TensorTargets
from squeezedet.models.squeezedet import grid_anchors
from squeezedet.preprocess import STRIDE, InputRule
from squeezedet.runtime.postprocess import Selection

# ------------------------------------------------------------ targets

# The first stage learns from up to 256 anchors of an image, half of them objects at most.
ANCHORS_LEARNT, ANCHORS_OBJECT = 256, 128
ANCHOR_POSITIVE_IOU, ANCHOR_NEGATIVE_IOU = 0.7, 0.3
ANCHOR_BETA = 1 / 9  # of smooth L1: 1 / sigma^2, sigma = 3
# The second stage learns from up to 128 boxes of an image, a quarter of them objects at most.
ROIS_LEARNT, ROIS_OBJECT = 128, 32
ROI_OBJECT_IOU = 0.5
REGION_SHARE = 0.5  # a box with more than this share inside a region is no background


@dataclass(frozen=True, slots=True)
class FasterRCNNTargets(TensorTargets):
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


def assign_anchors(
    anchors: Tensor, boxes: Tensor, regions: Tensor, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The labels and deltas of one image's (A, 4) xyxy anchors (section 3.1.2).

    An anchor is an object's when its IoU is at least 0.7, or the object's highest; background when its IoU with every
    object is below 0.3, unless it lies mostly inside a region. Anchors that leave the image learn nothing. No box is
    empty.
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
    shared = paired_intersection(boxes[:, None], regions[None])
    return (shared > REGION_SHARE * area(boxes)[:, None]).any(1)


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


def anchor_losses(logits: Tensor, deltas: Tensor, label: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
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
    """The second stage's two terms for one image, of (R, 1 + C) logits and (R, 1 + C, 4) deltas (Fast R-CNN, eq. 1)."""
    count = max(1, len(rois.label))
    positive = (rois.label > 0).nonzero().flatten()
    wanted = deltas_between(rois.boxes[positive], rois.objects[positive]) / spread
    mine = deltas[positive, rois.label[positive]]
    classes = F.cross_entropy(logits, rois.label, reduction="sum")
    return classes / count, F.smooth_l1_loss(mine, wanted, reduction="sum") / count


# ------------------------------------------------------------ RoI pooling


def roi_max_pool(features: Tensor, boxes: Tensor, bins: int, stride: int) -> Tensor:
    """Pool the (C, H, W) features of one image under (R, 4) xyxy boxes to (R, C, bins, bins), 0 beyond the map.

    Every bin is a rectangle of cells; its maximum is that of four overlapping rectangles whose sides are powers of two,
    and the maxima of those are made once for all boxes. The gradient goes to the features.
    """
    if torch.onnx.is_in_onnx_export():
        return _onnx_max_roi_pool(features, boxes, bins, stride)
    channels, height, width = features.shape
    down, across = _levels(height, bins), _levels(width, bins)
    tables = torch.stack([table for row in _doubled(features, down, 1) for table in _doubled(row, across, 2)])
    cells = tables.permute(0, 2, 3, 1).reshape(-1, channels)

    y1, y2 = (y[:, :, None] for y in _edges(boxes[:, 1], boxes[:, 3], height, bins, stride))
    x1, x2 = (x[:, None, :] for x in _edges(boxes[:, 0], boxes[:, 2], width, bins, stride))
    y_level, x_level = _level(y2 - y1, down), _level(x2 - x1, across)
    table = (y_level * across + x_level) * height
    rows = y1.clamp(max=height - 1), (y2 - (1 << y_level)).clamp(min=0)
    columns = x1.clamp(max=width - 1), (x2 - (1 << x_level)).clamp(min=0)
    corners = [cells[(table + y) * width + x] for y in rows for x in columns]
    pooled = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
    empty = (y2 <= y1) | (x2 <= x1)
    return pooled.masked_fill(empty[..., None], 0).permute(0, 3, 1, 2)


def _levels(cells: int, bins: int) -> int:
    """How many powers of two fit into the longest bin of a box, of which ``bins`` cells may lie beyond the map."""
    longest = min(cells, cells // bins + 3)
    return longest.bit_length()


def _doubled(x: Tensor, levels: int, dim: int) -> list[Tensor]:
    """[x, maxima of 2 neighbours, of 4, of 8, ...]; those that reach over the end are never read."""
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


# ------------------------------------------------------------ AlexNet


class AlexNet(nn.Module):
    """conv1 to conv5 (NIPS 2012, section 3.5) of ``bvlc_alexnet``, of stride 16: normalization before pooling.

    conv1 is padded by 5 pixels, which the classifier is not: so a side of 16 n pixels gives n cells. Cell i of the
    feature map looks at pixels around 16 i + 12: neither pool is padded.
    """

    channels = 256
    stride = 16

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4, padding=5)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        kaiming_normal(self, "conv1")

    @staticmethod
    def cells(pixels: int) -> int:
        """Cells of the feature map along a side of the image."""
        return (pixels + 3) // 4 // 4

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) pixels less their mean to (N, 256, H / 16, W / 16), H and W at least 16.

        A side that is no multiple of 16 gives what Caffe's rounding gives: 375 pixels 23 cells.
        """
        x = normalize_and_pool(F.relu(self.conv1(images), inplace=True))
        x = normalize_and_pool(F.relu(self.conv2(x), inplace=True))
        x = F.relu(self.conv3(x), inplace=True)
        x = F.relu(self.conv4(x), inplace=True)
        return F.relu(self.conv5(x), inplace=True)


def normalize_and_pool(x: Tensor) -> Tensor:
    """Local response normalization (section 3.3), then overlapping 3x3 pooling (section 3.4)."""
    x = F.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0)
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


# ------------------------------------------------------------ the detector

MEAN_RGB = (122.7717, 115.9465, 102.9801)  # the published code's
ANCHOR_BASE = 16
ROI_BINS = {"vgg16": 7, "alexnet": 6}
DELTA_SPREAD = (0.1, 0.1, 0.2, 0.2)  # the box head learns deltas divided by these
NO_PROPOSAL = -1e9  # stands for the score of a box that may not be proposed


@dataclass(frozen=True, slots=True, kw_only=True)
class FasterRCNNConfig:
    """What a Faster R-CNN is built from.

    Attributes:
        backbone: the convolutions under both stages.
        classes: class names; channel c + 1 of the class scores (channel 0 is background).
        ratios: height / width of the anchors.
        scales: size of the anchors, in units of 16 pixels.
        hidden: width of fc6 and fc7. The papers' is 4096; a smaller one is ours, for tests.
        candidates: boxes of the highest objectness that enter the proposals' NMS.
        proposals: boxes that leave it, and go through the second stage.
        training_candidates, training_proposals: the same while training.
        proposal_iou: IoU above which the lower of two proposals is dropped.
        min_size: a proposal is at least so many pixels wide and high.
        dropout: probability of dropping an output of fc6 and of fc7.
    """

    backbone: Literal["vgg16", "alexnet"] = "vgg16"
    classes: tuple[str, ...] = ("car", "pedestrian", "cyclist")
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    scales: tuple[float, ...] = (8.0, 16.0, 32.0)
    hidden: int = 4096
    candidates: int = 6000
    proposals: int = 300
    training_candidates: int = 12000
    training_proposals: int = 2000
    proposal_iou: float = 0.7
    min_size: float = 10.0
    dropout: float = 0.5


class Proposals(NamedTuple):
    """What the first stage proposes and the second stage says of it.

    Attributes:
        boxes: (N, R, 4) xyxy inside the image.
        found: (N, R) False for a row that only fills up, where fewer boxes were proposed.
        logits: (N, R, 1 + C), background first.
        deltas: (N, R, 1 + C, 4) from the proposal to the box of each class.
    """

    boxes: Tensor
    found: Tensor
    logits: Tensor
    deltas: Tensor


class Raw(NamedTuple):
    """What ``loss`` and ``decode`` read.

    Attributes:
        features: (N, channels, h, w).
        objectness: (N, A, 2) logits of background and object; A = h * w * K anchors, ordered by row, column, anchor.
        deltas: (N, A, 4) from the anchor to the proposal.
        image_size: (width, height) of the input.
        proposals: the second stage's answer; None while training, where it learns from sampled boxes instead.
    """

    features: Tensor
    objectness: Tensor
    deltas: Tensor
    image_size: tuple[int, int]
    proposals: Proposals | None


class FasterRCNN(DetectionNetwork):
    """The detector: ``forward``, ``loss`` and ``decode``."""

    kind = "faster-rcnn"
    config_type = FasterRCNNConfig

    shapes: Tensor
    spread: Tensor

    # -------------------------------------------------------------- network

    def __init__(self, config: FasterRCNNConfig | None = None) -> None:
        super().__init__()
        self.config = config or FasterRCNNConfig()
        self.input_rule = InputRule(1248, 384)
        if self.config.backbone == "vgg16":
            self.frozen = tuple(f"backbone.conv{b}_{i}" for b in (1, 2) for i in (1, 2))
        self.selection = Selection(candidates=self.config.proposals, top_n=100, nms_iou=0.3)
        self.normalize = SubtractMean(MEAN_RGB)
        self.backbone: VGG16 | AlexNet = VGG16() if self.config.backbone == "vgg16" else AlexNet()
        shapes = anchor_shapes(self.config.ratios, self.config.scales)
        channels, anchors, hidden = self.backbone.channels, len(shapes), self.config.hidden
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_score = nn.Conv2d(channels, 2 * anchors, 1)
        self.rpn_delta = nn.Conv2d(channels, 4 * anchors, 1)
        outputs = 1 + len(self.config.classes)
        self.bins = ROI_BINS[self.config.backbone]
        self.fc6 = nn.Linear(channels * self.bins**2, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, outputs)
        self.delta = nn.Linear(hidden, 4 * outputs)
        self.dropout = nn.Dropout(self.config.dropout)
        self.register_buffer("shapes", torch.tensor(shapes), persistent=False)
        self.register_buffer("spread", torch.tensor(DELTA_SPREAD), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal 0.01, the box layer 0.001; fc6 and fc7, which the paper copies, Kaiming's."""
        for layer in (self.rpn_conv, self.rpn_score, self.rpn_delta, self.score, self.delta):
            nn.init.normal_(layer.weight, std=0.001 if layer is self.delta else 0.01)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Raw:
        """(N, 3, H, W) RGB pixels from 0 to 255; sides of at least 16 pixels."""
        features = self.backbone(self.normalize(images).flip(1))  # published weights take BGR
        x = F.relu(self.rpn_conv(features), inplace=True)
        n, k = len(images), len(self.shapes)
        # Background's channels of all anchors, then the object's, as the published code has it.
        objectness = self.rpn_score(x).unflatten(1, (2, k)).permute(0, 3, 4, 2, 1)
        deltas = self.rpn_delta(x).unflatten(1, (k, 4)).permute(0, 3, 4, 1, 2)
        size = (images.shape[3], images.shape[2])
        raw = Raw(features, objectness.reshape(n, -1, 2), deltas.reshape(n, -1, 4), size, None)
        return raw if self.training else raw._replace(proposals=self.propose_and_classify(raw))

    def propose_and_classify(self, raw: Raw) -> Proposals:
        boxes, found = self.propose(raw, self.config.candidates, self.config.proposals)
        n, r = found.shape
        logits, deltas = self.classify(raw.features, boxes.unbind())
        return Proposals(boxes, found, logits.view(n, r, -1), deltas.view(n, r, -1, 4))

    def classify(self, features: Tensor, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The second stage: (R_i, 4) boxes of each image to (R, 1 + C) class logits and (R, 1 + C, 4) deltas of all."""
        features = features.to(self.fc6.weight.dtype)
        pooled = [
            roi_max_pool(image, xyxy, self.bins, self.backbone.stride)
            for image, xyxy in zip(features, boxes, strict=True)
        ]
        x = self.dropout(F.relu(self.fc6(torch.cat(pooled).flatten(1))))
        x = self.dropout(F.relu(self.fc7(x)))
        return self.score(x), self.delta(x).unflatten(1, (-1, 4))

    # -------------------------------------------------------------- anchors

    def anchors(self, grid: tuple[int, int]) -> Tensor:
        """(columns, rows) of the feature map to (A, 4) xyxy anchors, some beyond the image."""
        x, y = ((torch.arange(n, device=self.shapes.device) + 0.5) * STRIDE for n in grid)
        return to_corners(grid_anchors(x, y, self.shapes))

    # ------------------------------------------------------------ proposals

    @torch.no_grad()
    def propose(self, raw: Raw, candidates: int, count: int) -> tuple[Tensor, Tensor]:
        """The first stage's boxes, best first: (N, count, 4) xyxy and (N, count) ``found``.

        Spare boxes beyond the image take part where there are too few, so that no shape depends on the pixels; where
        one of them is kept, ``found`` is False and the box is all zeros.
        """
        anchors = self.anchors((raw.features.shape[3], raw.features.shape[2]))
        boxes = clip(move(anchors, raw.deltas.float()), raw.image_size)
        large = (boxes[..., 2:] - boxes[..., :2] >= self.config.min_size).all(-1)
        # The difference orders as the probability does, and does not saturate.
        score = raw.objectness[..., 1].float() - raw.objectness[..., 0].float()
        score = score.where(large, NO_PROPOSAL)
        spare, none = spare_boxes(candidates + count, boxes.device), score.new_full((), NO_PROPOSAL)
        chosen = []
        for xyxy, objectness in zip(boxes.unbind(), score.unbind(), strict=True):
            best, order = torch.cat([objectness, none.expand(candidates)]).topk(candidates)
            ranked = torch.cat([torch.cat([xyxy, spare[:candidates]])[order], spare[candidates:]])
            best = torch.cat([best, none.expand(count)])
            kept = nms(ranked, best, self.config.proposal_iou, count)
            found = best[kept] > NO_PROPOSAL
            chosen.append((ranked[kept] * found[:, None], found))
        return torch.stack([b for b, _ in chosen]), torch.stack([f for _, f in chosen])

    # ------------------------------------------------------------- decoding

    def decode(self, raw: Raw) -> tuple[Tensor, Tensor, Tensor]:
        """(N, R, 4) xyxy boxes, (N, R) scores, (N, R) class ids: one row for each proposal.

        The score is the probability of the best class that is not background, the box the one that this class's deltas
        give; a row without a proposal has score 0.
        """
        boxes, found, logits, deltas = raw.proposals or self.propose_and_classify(raw)
        score, class_id = logits.float().softmax(-1)[..., 1:].max(-1)
        mine = (class_id + 1)[..., None, None].expand(-1, -1, 1, 4)
        mine_deltas = deltas.float().gather(2, mine).squeeze(2) * self.spread
        return clip(move(boxes, mine_deltas), raw.image_size), score * found, class_id

    # -------------------------------------------------------------- targets

    def targets(self, labels: Labels) -> FasterRCNNTargets:
        columns, rows = (self.backbone.cells(side) for side in labels.image_size)
        anchors = self.anchors((columns, rows)).cpu()
        labels = labels.without_empty()
        images = zip(labels.boxes, labels.regions, strict=True)
        assigned = [assign_anchors(anchors, boxes, regions, labels.image_size) for boxes, regions in images]
        label, deltas = (torch.stack(field) for field in zip(*assigned, strict=True))
        objects = padded(labels.boxes, 0), padded(labels.classes, -1), padded(labels.regions, 0)
        return FasterRCNNTargets(label, deltas, *objects)

    # ----------------------------------------------------------------- loss

    def loss(self, raw: Raw, targets: FasterRCNNTargets) -> dict[str, Tensor]:
        """The four terms of sections 3.1.2 and 3.2, each the mean over the images of the batch.

        Which anchors and which proposals are learned is drawn with torch's random numbers of the processor.
        """
        config = self.config
        proposals, found = self.propose(raw, config.training_candidates, config.training_proposals)
        images = []
        for i, xyxy in enumerate(proposals):
            answer = raw.objectness[i].float(), raw.deltas[i].float()
            first = anchor_losses(*answer, targets.label[i], targets.deltas[i])
            rois = sample_rois(xyxy[found[i]], targets.boxes[i], targets.classes[i], targets.regions[i])
            logits, deltas = self.classify(raw.features[i : i + 1], [rois.boxes])
            images.append(first + roi_losses(logits.float(), deltas.float(), rois, self.spread))
        names = ("rpn_class", "rpn_box", "class", "box")
        terms = zip(*images, strict=True)
        total = self.sum_over_processes(torch.full((), len(images), device=proposals.device))
        return {n: torch.stack(term).sum() / total for n, term in zip(names, terms, strict=True)}


def anchor_shapes(ratios: Sequence[float], scales: Sequence[float]) -> list[tuple[float, float]]:
    """(width, height) of the anchors: sides are rounded before they are scaled, as published."""
    shapes = []
    for ratio in ratios:
        width = round(math.sqrt(ANCHOR_BASE**2 / ratio))
        shapes += [(float(width * s), float(round(width * ratio) * s)) for s in scales]
    return shapes
