"""Two-scale SqueezeDet: a second ConvDet at stride 8 beside the one at stride 16.

A pedestrian 25 px high is 10 px wide, less than a cell of 16 px. So small anchors live on a finer grid: the map of
fire5, at stride 8, plus what fire11, at stride 16, knows of the same place, brought to the finer grid (as in feature
pyramids, arXiv 1612.03144), one 3x3 convolution, and a ConvDet::

    conv1 .. fire5 ---------- pool5 .. fire11 --- convdet        (large anchors, stride 16)
               |                          |
         lateral 1x1  <-- add --- top_down 1x1, each cell four times
               |
        relu, mix 3x3, relu, fine 3x3                            (small anchors, stride 8)

The anchors of both grids are assigned together and share one loss. Boxes are xyxy in network-input pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.models.layers import paired_giou, paired_iou
from squeezedet.models.network import DetectionNetwork, Labels
from squeezedet.models.squeezedet import (
    SQUEEZEDET,
    Assignment,
    ConvDetTargets,
    FireSpec,
    SqueezeDetBackbone,
    assign_batch,
    fire_names,
    grid_anchors,
    quality_focal,
    safe_exp,
    with_widths,
)
from squeezedet.preprocess import STRIDE, InputRule
from squeezedet.runtime.postprocess import Selection

FINE_STRIDE = 8
BRANCH = "fire5"
"""The last layer of stride 8."""
RARE = -4.0
"""Confidence logit at the start: most anchors hold nothing."""
Maps = tuple[Tensor, Tensor]
"""Of the fine and of the coarse grid."""

# Those of squeezedet-slim, but for conv1 to fire5: channels that the next layer can do without (docs/notebook.md, entry
# 25), which pays for the second grid.
WIDTHS = (
    32, 16, 40, 48, 16, 32, 64, 32, 88, 120, 32, 88, 120, 48, 192, 184, 48, 176, 176,
    64, 104, 208, 64, 136, 96, 80, 56, 120, 72, 72, 136,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoScaleConfig(Assignment):
    """What a two-scale detector is built from, beside the assignment of objects.

    Attributes:
        widths: channels of each convolution of the backbone, see ``squeezedet.widths``.
        lateral: channels of the sum of both grids.
        mix: channels in front of the fine ConvDet.
        classes: class names; the channel order of the class scores.
        fine_anchors: (width, height) of the anchors at stride 8, in network-input pixels.
        anchors: those at stride 16.
        size: (width, height) whose number of pixels an image gets.
        dropout: probability of dropping an input of either ConvDet.
        loss_class, loss_box, loss_iou, loss_focal: weights of the terms, see ``ConvDetConfig``.
    """

    widths: tuple[int, ...] = WIDTHS
    lateral: int = 64
    mix: int = 64
    classes: tuple[str, ...] = ("car", "pedestrian", "cyclist")
    fine_anchors: tuple[tuple[int, int], ...] = ((12, 36), (31, 26), (22, 57), (52, 35))
    anchors: tuple[tuple[int, int], ...] = (
        (39, 91), (92, 54), (64, 160), (163, 99), (110, 288), (305, 219),
    )  # fmt: skip
    size: tuple[int, int] = (1248, 384)
    dropout: float = 0.0
    loss_class: float = 1.0
    loss_box: float = 5.0
    loss_iou: float = 2.0
    loss_focal: float = 4.0

    def __post_init__(self) -> None:
        with_widths(SQUEEZEDET, self.widths)


class TwoStrideBackbone(SqueezeDetBackbone):
    """SqueezeDet's layers; gives the map of ``BRANCH`` (stride 8), too, which has ``fine_channels``."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__(with_widths(SQUEEZEDET, widths))
        names = [layer.name for layer in self.layers]
        self.branch = names.index(BRANCH) + 1
        fire = self.layers[self.branch - 1]
        assert isinstance(fire, FireSpec)  # noqa: S101 - BRANCH names a fire module
        self.fine_channels = fire.expand1x1 + fire.expand3x3

    def forward(self, images: Tensor) -> Maps:  # type: ignore[override]
        """(N, 3, H, W) RGB pixels from 0 to 255 to features of stride 8 and of stride 16."""
        x = self.normalize(self.pad(images))
        fine = self.run(self.layers[: self.branch], x)
        return fine, self.run(self.layers[self.branch :], fine)


class TwoScale(DetectionNetwork):
    """A SqueezeDet with small anchors at stride 8 and large ones at stride 16."""

    kind = "two-scale"
    config_type = TwoScaleConfig
    config: TwoScaleConfig
    fine_shapes: Tensor
    shapes: Tensor

    def __init__(self, config: TwoScaleConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TwoScaleConfig()
        self.backbone = TwoStrideBackbone(config.widths)
        each = len(config.classes) + 1 + 4
        self.dropout = nn.Dropout2d(config.dropout)
        self.lateral = nn.Conv2d(self.backbone.fine_channels, config.lateral, 1)
        self.top_down = nn.Conv2d(self.backbone.channels, config.lateral, 1, bias=False)
        self.mix = nn.Conv2d(config.lateral, config.mix, 3, padding=1)
        self.fine = nn.Conv2d(config.mix, len(config.fine_anchors) * each, 3, padding=1)
        self.convdet = nn.Conv2d(self.backbone.channels, len(config.anchors) * each, 3, padding=1)
        for name, shapes in (("fine_shapes", config.fine_anchors), ("shapes", config.anchors)):
            self.register_buffer(name, torch.tensor(shapes).float(), persistent=False)
        for layer in (self.lateral, self.top_down, self.mix):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for head, count in ((self.fine, len(config.fine_anchors)), (self.convdet, len(config.anchors))):
            nn.init.normal_(head.weight, std=0.001)
            with torch.no_grad():
                biases = head.get_parameter("bias").zero_().view(count, each)
                biases[:, len(config.classes)] = RARE
        self.input_rule = InputRule(*config.size)
        self.selection = Selection(nms_iou=0.45, vote_iou=0.6, top_n=100)
        self.frozen = ("backbone.conv1",)

    # -------------------------------------------------------------- network

    def forward(self, images: Tensor) -> Maps:
        """(N, 3, H, W) RGB pixels from 0 to 255, sides multiples of 16, to the maps of the fine and of the coarse grid.

        They are (N, K * (C + 5), H / 8, W / 8) and half of that; the C + 5 channels of an anchor (class logits,
        confidence logit, deltas) stand together.
        """
        if images.shape[-1] % STRIDE or images.shape[-2] % STRIDE:
            raise ValueError(f"sides must be multiples of {STRIDE}: {tuple(images.shape)}")
        fine, coarse = self.backbone(images.to(self.shapes.dtype))
        above = F.interpolate(self.top_down(coarse), scale_factor=2.0, mode="nearest")
        x = F.relu(self.lateral(fine) + above)
        x = F.relu(self.mix(x))
        return self.fine(self.dropout(x)), self.convdet(self.dropout(coarse))

    def planes(self, raw: Maps) -> Tensor:
        """Both maps to (N, C + 5, A): class logits, confidence logit and deltas of each anchor.

        The anchors of the fine grid come first; each grid is ordered by anchor, row, column. So every number of an
        anchor is a plane of its own, which an engine goes through in one sweep.
        """
        each = len(self.config.classes) + 5
        levels = []
        for level in raw:
            n, channels, h, w = level.shape
            by_anchor = level.reshape(n, channels // each, each, h * w)
            levels.append(by_anchor.transpose(1, 2).reshape(n, each, -1))
        return torch.cat(levels, dim=2)

    def published_backbone(self) -> dict[str, str]:
        return fire_names(self.backbone)

    def fused(self) -> TwoScale:
        network = self.folded()
        network.backbone.fold_mean()
        return network

    # -------------------------------------------------------------- anchors

    def anchors(self, grid: tuple[int, int]) -> Tensor:
        """(columns, rows) of the coarse grid to (A, 4) anchors of both: center, width, height."""
        levels = []
        for shapes, stride in ((self.fine_shapes, FINE_STRIDE), (self.shapes, STRIDE)):
            x, y = ((torch.arange(n * STRIDE // stride, device=shapes.device) + 0.5) * stride for n in grid)
            levels.append(grid_anchors(x, y, shapes).view(-1, len(shapes), 4).transpose(0, 1).flatten(0, 1))
        return torch.cat(levels)

    def boxes(self, deltas: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, 4, A) deltas to (N, A, 4) xyxy boxes inside the image (SqueezeDet, eq. 1)."""
        anchors = self.anchors(grid).T  # (4, A)
        center = anchors[:2] + anchors[2:] * deltas[:, :2]
        half = anchors[2:] * (safe_exp(deltas[:, 2:]) / 2)
        low, high = center - half, center + half
        sides = (grid[0] * STRIDE, grid[1] * STRIDE)
        corners = [corner[:, i].clamp(0, sides[i]) for corner in (low, high) for i in (0, 1)]
        return torch.stack(corners, dim=-1)

    def decode(self, raw: Maps) -> tuple[Tensor, Tensor, Tensor]:
        """Both maps to (N, A, 4) xyxy boxes, (N, A) scores, (N, A) class ids.

        The score is confidence times the softmax of the best class, as in ConvDet; class by class, since engines are
        slow at a softmax over three numbers.
        """
        planes, c = self.planes(raw), len(self.config.classes)
        best, class_id = planes[:, 0], torch.zeros_like(planes[:, 0])
        for i in range(1, c):
            class_id = torch.where(planes[:, i] > best, float(i), class_id)
            best = torch.maximum(best, planes[:, i])
        total = sum((planes[:, i] - best).exp() for i in range(c))
        boxes = self.boxes(planes[:, c + 1 :], (raw[1].shape[3], raw[1].shape[2]))
        return boxes, planes[:, c].sigmoid() / total, class_id.long()

    # ----------------------------------------------------------------- loss

    def targets(self, labels: Labels) -> ConvDetTargets:
        width, height = labels.image_size
        anchors = self.anchors((-(-width // STRIDE), -(-height // STRIDE))).cpu()
        return assign_batch(anchors, labels, self.config)

    def loss(self, raw: Maps, targets: ConvDetTargets) -> dict[str, Tensor]:
        """ConvDet's terms with the quality focal loss, over the anchors of both grids."""
        config = self.config
        planes, c = self.planes(raw).float(), len(config.classes)
        confidence = planes[:, c]
        positive = targets.positive
        objects = self.sum_over_processes(positive.sum()).clamp(min=1)
        found = planes.transpose(1, 2)[positive]  # (P, C + 5)
        classes = F.cross_entropy(found[:, :c], targets.class_id[positive], reduction="sum")
        squares = (found[:, c + 1 :] - targets.deltas[positive]).square().sum()
        decoded = self.boxes(planes[:, c + 1 :], (raw[1].shape[3], raw[1].shape[2]))[positive]
        wanted = targets.boxes[positive]
        quality = torch.zeros_like(confidence)
        quality[positive] = paired_iou(decoded.detach(), wanted)
        focal = quality_focal(confidence, quality)[~targets.ignored].sum()
        return {
            "class": config.loss_class * classes / objects,
            "focal": config.loss_focal * focal / objects,
            "box": config.loss_box * squares / objects,
            "iou": config.loss_iou * (1 - paired_giou(decoded, wanted)).sum() / objects,
        }
