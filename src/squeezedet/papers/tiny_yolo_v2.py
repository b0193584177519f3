"""Tiny YOLO, version 2 (arXiv 1612.08242): nine convolutions and five anchors on a stride-32 grid.

It is darknet's yolov2-tiny-voc.cfg with the loss of its region layer, which for its first 12,800 images also pulls
every box towards its anchor; here boxes begin there, as the last layer starts near zero. Each anchor answers four
deltas, one objectness and C class logits; anchors go by row, column, anchor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.data.voc import VOC_CLASSES
from squeezedet.models.layers import clip, paired_iou, to_center, to_corners
from squeezedet.models.network import Labels, TensorTargets
from squeezedet.papers.darknet import Convolution, DarknetDetector, grid_cells, initialize, inside_any
from squeezedet.preprocess import InputRule
from squeezedet.runtime.postprocess import Selection

STRIDE = 32
CHANNELS = (16, 32, 64, 128, 256, 512, 1024, 1024)  # all 3x3; pools after the first six
POOLS = 6  # the last of them has stride 1

# (width, height) in cells of the grid, from the VOC boxes.
ANCHORS_VOC = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))
MAX_LOG_SIZE = 10.0  # a box 22,026 times its anchor: beyond any image, below any overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyYoloV2Config:
    """What a Tiny YOLO v2 is built from.

    Attributes:
        classes: class names; the order of the class scores.
        anchors: (width, height) of each anchor in cells of 32 pixels.
        size: (width, height) of the input in pixels, multiples of 32.
        width: factor of every layer's channels; ours, for small experiments.
        loss_class, loss_box, loss_object, loss_background: the scales of the region layer.
        ignore_iou: a box above this IoU with an object is no background (``thresh``).
    """

    classes: tuple[str, ...] = VOC_CLASSES
    anchors: tuple[tuple[float, float], ...] = ANCHORS_VOC
    size: tuple[int, int] = (416, 416)
    width: float = 1.0
    loss_class: float = 1.0
    loss_box: float = 1.0
    loss_object: float = 5.0
    loss_background: float = 1.0
    ignore_iou: float = 0.6

    def __post_init__(self) -> None:
        if any(side <= 0 or side % STRIDE for side in self.size):
            raise ValueError(f"the sides of size must be multiples of {STRIDE}: {self.size}")


class TinyYoloV2(DarknetDetector):
    """The detector: ``forward``, ``loss`` and ``decode``."""

    kind = "tiny-yolo-v2"
    config_type = TinyYoloV2Config
    shapes: Tensor
    selection = Selection(score=0.24, nms_iou=0.4)  # darknet's test

    def __init__(self, config: TinyYoloV2Config | None = None) -> None:
        super().__init__()
        self.config: TinyYoloV2Config = config or TinyYoloV2Config()
        self.input_rule = InputRule(*self.config.size, fixed=True)
        self.backbone = nn.Sequential()
        channels = 3
        for i, wanted in enumerate(CHANNELS, start=1):
            out = max(1, round(wanted * self.config.width))
            self.backbone.add_module(f"conv{i}", Convolution(channels, out, 3, batch_norm=True))
            if i <= POOLS:
                pool = PoolSameSize() if i == POOLS else nn.MaxPool2d(2)
                self.backbone.add_module(f"pool{i}", pool)
            channels = out
        outputs = len(self.config.anchors) * (5 + len(self.config.classes))
        self.output = Convolution(channels, outputs, 1, batch_norm=False, linear=True)
        shapes = torch.tensor(self.config.anchors, dtype=torch.float32)
        self.register_buffer("shapes", shapes, persistent=False)
        initialize(self, self.output.conv)

    def folded(self) -> Self:
        network = super().folded()
        for module in network.modules():
            if isinstance(module, Convolution):
                module.fold()
        return network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) RGB pixels from 0 to 255, sides of ``config.size``, to (N, K * (5 + C), H / 32, W / 32)."""
        if tuple(images.shape[-2:]) != self.config.size[::-1]:
            width, height = self.config.size
            raise ValueError(f"this network takes {width}x{height}, not {tuple(images.shape)}")
        x = images.to(self.output.conv.weight.dtype) / 255
        raw: Tensor = self.output(self.backbone(x))
        return raw

    def split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The map to (N, A, 4) deltas, (N, A) objectness logits, (N, A, C) class logits."""
        entries = 5 + len(self.config.classes)
        by_anchor = raw.permute(0, 2, 3, 1).reshape(raw.shape[0], -1, entries)
        return by_anchor[..., :4], by_anchor[..., 4], by_anchor[..., 5:]

    def boxes(self, deltas: Tensor) -> Tensor:
        """(N, A, 4) deltas to (N, A, 4) xyxy boxes in input pixels, uncut (section 2).

        The center stays in its cell: cell + sigmoid(t); the size is anchor * exp(t), in cells.
        """
        cells, shapes = self._anchors()
        center = cells + deltas[..., :2].sigmoid()
        size = shapes * deltas[..., 2:].clamp(max=MAX_LOG_SIZE).exp()
        return to_corners(torch.cat([center, size], dim=-1)) * STRIDE

    def _anchors(self) -> tuple[Tensor, Tensor]:
        """(A, 2) column and row of each anchor's cell, (A, 2) its width and height in cells."""
        columns, rows = (side // STRIDE for side in self.config.size)
        cells = grid_cells(columns, rows, self.shapes.device)[:, None].expand(-1, len(self.shapes), 2)
        return cells.reshape(-1, 2), self.shapes.repeat(rows * columns, 1)

    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The map to (N, A, 4) xyxy boxes, (N, A) scores, (N, A) class ids.

        The score is objectness times the best class probability.
        """
        deltas, objectness, logits = self.split(raw)
        probability, class_id = logits.softmax(dim=-1).max(dim=-1)
        return clip(self.boxes(deltas), self.config.size), probability * objectness.sigmoid(), class_id

    # ----------------------------------------------------------------- loss

    def targets(self, labels: Labels) -> TinyYoloTargets:
        """An object belongs to one anchor: of its center's cell, the nearest in shape.

        Of several objects the first gets the anchor. An anchor without object whose cell's center lies in a region has
        no background loss.
        """
        most = max([len(b) for b in labels.boxes], default=0)
        assigned = []
        for b, c, r in zip(labels.boxes, labels.classes, labels.regions, strict=True):
            every = F.pad(b, (0, 0, 0, most - len(b)))
            assigned.append((*self._assign(b, c, r), every))
        return TinyYoloTargets(*(torch.stack(field) for field in zip(*assigned, strict=True)))

    def _assign(self, boxes: Tensor, classes: Tensor, regions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The targets of one image, in the order of the fields of ``Targets``."""
        cells, _ = (x.cpu() for x in self._anchors())
        shapes = self.shapes.cpu()
        columns, rows = (side // STRIDE for side in self.config.size)
        k, grid = len(shapes), torch.tensor([columns, rows])
        positive = torch.zeros(len(cells), dtype=torch.bool)
        class_id, box = torch.zeros(len(cells), dtype=torch.int64), torch.zeros(len(cells), 4)
        for xyxy, its_class in zip(boxes, classes, strict=True):
            centerd = to_center(xyxy) / STRIDE
            column, row = centerd[:2].long().clamp(torch.zeros_like(grid), grid - 1).tolist()
            least, size = torch.minimum(shapes, centerd[2:]).prod(1), centerd[2:].prod()
            nearest = int((least / (shapes.prod(1) + size - least)).argmax())
            anchor = (row * columns + column) * k + nearest
            if not positive[anchor]:
                positive[anchor], class_id[anchor], box[anchor] = True, its_class, xyxy
        return positive, inside_any((cells + 0.5) * STRIDE, regions) & ~positive, class_id, box

    def loss(self, raw: Tensor, targets: TinyYoloTargets) -> dict[str, Tensor]:
        """The terms of the region layer: half squares, so that gradients are darknet's.

        An object's anchor learns its own IoU as objectness (``rescore``); the others learn 0 unless their box overlaps
        an object by more than ``ignore_iou``. Sums over an image, means over the batch.
        """
        config, positive = self.config, targets.positive
        images = self.sum_over_processes(torch.full((), len(raw), device=raw.device))
        deltas, objectness, logits = self.split(raw.float())
        with torch.no_grad():
            boxes = self.boxes(deltas)
            every = paired_iou(boxes[:, :, None], targets.every[:, None])  # (N, A, most)
            near = (every > config.ignore_iou).any(dim=2)
            overlap = paired_iou(boxes[positive], targets.box[positive])
        objectness = objectness.sigmoid()
        cells, shapes = (x.expand(len(raw), -1, 2)[positive] for x in self._anchors())
        wanted = to_center(targets.box[positive]) / STRIDE
        offset = deltas[positive][:, :2].sigmoid() - (wanted[:, :2] - cells)
        log_size = deltas[positive][:, 2:] - (wanted[:, 2:] / shapes).log()
        background = ~positive & ~targets.ignored & ~near
        terms = {
            "class": config.loss_class * F.cross_entropy(logits[positive], targets.class_id[positive], reduction="sum"),
            "object": config.loss_object / 2 * (objectness[positive] - overlap).square().sum(),
            "background": config.loss_background / 2 * objectness[background].square().sum(),
            "box": config.loss_box / 2 * (offset.square().sum() + log_size.square().sum()),
        }
        return {name: term / images for name, term in terms.items()}


class PoolSameSize(nn.Module):
    """2x2 max pooling of stride 1; the last column and row are their own neighbours."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, 1)


# ------------------------------------------------------------------- targets


@dataclass(frozen=True, slots=True)
class TinyYoloTargets(TensorTargets):
    """What each anchor of a batch shall answer.

    Attributes:
        positive: (N, A) bool, the anchor learns an object.
        ignored: (N, A) bool, the anchor has no background loss.
        class_id: (N, A) int64.
        box: (N, A, 4) float32 xyxy of its object, in input pixels.
        every: (N, most, 4) float32 xyxy of all objects of an image; empty boxes fill up.
    """

    positive: Tensor
    ignored: Tensor
    class_id: Tensor
    box: Tensor
    every: Tensor
