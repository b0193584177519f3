"""Faster R-CNN, top to bottom: two stages, anchors, proposals, targets, losses, decoding.

Ren, He, Girshick, Sun: "Faster R-CNN: Towards Real-Time Object Detection with
Region Proposal Networks", arXiv 1506.01497, with VGG16 or AlexNet, and the
constants of its published code (py-faster-rcnn, end-to-end training). What
differs, on purpose:

- Boxes are continuous: no pixel is ever added. The code adds 1 to widths.
- A proposal answers with its best class only; the code reports it for each class.
- Log sizes are clamped, so that no box overflows.
- Proposals have at least 10 pixels, not 16: the code enlarges images to a short
  side of 600 pixels, where a road camera's 375 stay as they are.

A batch may have any size; the exported graph holds one image. Boxes are xyxy in
network-input pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.detectors.alexnet import AlexNet
from squeezedet.detectors.box_deltas import clip, move
from squeezedet.detectors.faster_rcnn_targets import (
    Targets,
    anchor_losses,
    assign,
    padded,
    roi_losses,
    sample_rois,
)
from squeezedet.detectors.geometry import to_corners
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.detectors.nms import nms, spare_boxes
from squeezedet.detectors.normalise import SubtractMean
from squeezedet.detectors.roi_pool import roi_max_pool
from squeezedet.detectors.vgg import VGG16
from squeezedet.runtime.postprocess import Selection
from squeezedet.runtime.preprocess import InputRule

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
        objectness: (N, A, 2) logits of background and object; A = h * w * K anchors, ordered
            by row, column, anchor.
        deltas: (N, A, 4) from the anchor to the proposal.
        image_size: (width, height) of the input.
        proposals: the second stage's answer; None while training, where it learns from
            sampled boxes instead.
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
        self.normalise = SubtractMean(MEAN_RGB)
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
        """(N, 3, H, W) RGB pixels from 0 to 255, any dtype; sides of at least 16 pixels."""
        features = self.backbone(self.normalise(images).flip(1))  # published weights take BGR
        x = F.relu(self.rpn_conv(features), inplace=True)
        n, k = len(images), len(self.shapes)
        # Background's channels of all anchors, then the object's, as the published code has it.
        objectness = self.rpn_score(x).unflatten(1, (2, k)).permute(0, 3, 4, 2, 1)
        deltas = self.rpn_delta(x).unflatten(1, (k, 4)).permute(0, 3, 4, 1, 2)
        size = (images.shape[3], images.shape[2])
        raw = Raw(features, objectness.reshape(n, -1, 2), deltas.reshape(n, -1, 4), size, None)
        return raw if self.training else raw._replace(proposals=self.propose_and_classify(raw))

    def propose_and_classify(self, raw: Raw) -> Proposals:
        """Run the second stage on the proposals of the first."""
        boxes, found = self.propose(raw, self.config.candidates, self.config.proposals)
        n, r = found.shape
        logits, deltas = self.classify(raw.features, boxes.unbind())
        return Proposals(boxes, found, logits.view(n, r, -1), deltas.view(n, r, -1, 4))

    def classify(self, features: Tensor, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The second stage: boxes of each image to class logits and deltas.

        Args:
            features: (N, channels, h, w).
            boxes: for each image (R_i, 4) xyxy; R is the sum over the images.

        Returns:
            (R, 1 + C) logits and (R, 1 + C, 4) deltas.
        """
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
        columns, rows = grid
        x, y = ((torch.arange(n, device=self.shapes.device) + 0.5) * 16 for n in grid)
        k = len(self.shapes)
        centres = torch.stack(
            [x.view(1, -1, 1).expand(rows, columns, k), y.view(-1, 1, 1).expand(rows, columns, k)],
            dim=-1,
        )
        shapes = self.shapes.expand(rows, columns, k, 2)
        return to_corners(torch.cat([centres, shapes], dim=-1).view(-1, 4))

    # ------------------------------------------------------------ proposals

    @torch.no_grad()
    def propose(self, raw: Raw, candidates: int, count: int) -> tuple[Tensor, Tensor]:
        """The first stage's boxes, best first: (N, count, 4) xyxy and (N, count) ``found``.

        Spare boxes beyond the image take part where there are too few, so that no shape depends
        on the pixels; where one of them is kept, ``found`` is False and the box is all zeros.
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

        The score is the probability of the best class that is not background, the box the one
        that this class's deltas give; a row without a proposal has score 0.
        """
        boxes, found, logits, deltas = raw.proposals or self.propose_and_classify(raw)
        score, class_id = logits.float().softmax(-1)[..., 1:].max(-1)
        mine = (class_id + 1)[..., None, None].expand(-1, -1, 1, 4)
        mine_deltas = deltas.float().gather(2, mine).squeeze(2) * self.spread
        return clip(move(boxes, mine_deltas), raw.image_size), score * found, class_id

    # -------------------------------------------------------------- targets

    def targets(
        self,
        boxes: Sequence[Tensor],
        classes: Sequence[Tensor],
        regions: Sequence[Tensor],
        image_size: tuple[int, int],
    ) -> Targets:
        """Give the objects of a batch to anchors; see ``DetectionNetwork.targets``."""
        grid = self.backbone.cells(image_size[0]), self.backbone.cells(image_size[1])
        anchors = self.anchors(grid).cpu()
        solid = [(b[:, 2:] > b[:, :2]).all(1) for b in boxes]  # no logarithm without an area
        boxes = [b[s] for b, s in zip(boxes, solid, strict=True)]
        classes = [c[s] for c, s in zip(classes, solid, strict=True)]
        assigned = [assign(anchors, b, r, image_size) for b, r in zip(boxes, regions, strict=True)]
        label, deltas = (torch.stack(field) for field in zip(*assigned, strict=True))
        return Targets(label, deltas, padded(boxes, 0), padded(classes, -1), padded(regions, 0))

    # ----------------------------------------------------------------- loss

    def loss(self, raw: Raw, targets: Targets) -> dict[str, Tensor]:
        """The four terms of sections 3.1.2 and 3.2, each the mean over the images of the batch.

        Which anchors and which proposals are learnt is drawn with torch's random numbers of
        the processor: ``torch.manual_seed`` decides.
        """
        config = self.config
        proposals, found = self.propose(raw, config.training_candidates, config.training_proposals)
        images = []
        for i, xyxy in enumerate(proposals):
            answer = raw.objectness[i].float(), raw.deltas[i].float()
            first = anchor_losses(*answer, targets.label[i], targets.deltas[i])
            rois = sample_rois(
                xyxy[found[i]], targets.boxes[i], targets.classes[i], targets.regions[i]
            )
            logits, deltas = self.classify(raw.features[i : i + 1], [rois.boxes])
            images.append(first + roi_losses(logits.float(), deltas.float(), rois, self.spread))
        names = ("rpn_class", "rpn_box", "class", "box")
        terms = zip(*images, strict=True)
        total = self.sum_over_processes(torch.tensor(len(images), device=proposals.device))
        return {n: torch.stack(term).sum() / total for n, term in zip(names, terms, strict=True)}


def anchor_shapes(ratios: Sequence[float], scales: Sequence[float]) -> list[tuple[float, float]]:
    """(width, height) of the anchors: sides are rounded before they are scaled, as published."""
    shapes = []
    for ratio in ratios:
        width = round(math.sqrt(ANCHOR_BASE**2 / ratio))
        shapes += [(float(width * s), float(round(width * ratio) * s)) for s in scales]
    return shapes
