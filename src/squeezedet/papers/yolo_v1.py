"""YOLO, version 1 (Redmon et al., arXiv 1506.02640): a grid of 7x7 cells, each with a few boxes and one class.

24 convolutions make a 7x7x1024 map of a 448x448 image. The head ``fcdet`` is the paper's: a connected layer of 4096,
then one of 7x7x(C + 5B), B = 2, no batch norm; its 205 million weights are SqueezeDet's argument in section 3.2.
``local`` is darknet's yolov1.cfg, whose file of 753 MB SqueezeDet quotes: 256 channels with weights of their own in
each cell, then a connected layer, B = 3, batch norm. Answers have darknet's order: the classes of all cells (by row,
then column), the confidences of all boxes, the coordinates of all boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.data.voc import VOC_CLASSES
from squeezedet.models.layers import paired_iou, to_center, to_corners
from squeezedet.models.network import Labels, TensorTargets
from squeezedet.papers.darknet import (
    LEAK,
    Convolution,
    DarknetDetector,
    LocallyConnected2d,
    grid_cells,
    initialize,
    inside_any,
)
from squeezedet.preprocess import InputRule
from squeezedet.runtime.postprocess import Selection

SIDE_PX = 448
GRID = 7  # cells along a side
CELLS = GRID * GRID

# ------------------------------------------------------------------ layers

POOL: Final = "pool"  # 2x2, stride 2
ConvSpec = tuple[int, int, int]  # kernel, channels, stride

BACKBONE: tuple[ConvSpec | Literal["pool"], ...] = (  # figure 3 of the paper
    *((7, 64, 2), POOL),
    *((3, 192, 1), POOL),
    *((1, 128, 1), (3, 256, 1), (1, 256, 1), (3, 512, 1), POOL),
    *((1, 256, 1), (3, 512, 1)) * 4,
    *((1, 512, 1), (3, 1024, 1), POOL),
    *((1, 512, 1), (3, 1024, 1)) * 2,
    *((3, 1024, 1), (3, 1024, 2), (3, 1024, 1), (3, 1024, 1)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloV1Config:
    """What a YOLO v1 is built from; the defaults are the paper's network.

    Attributes:
        classes: class names; the order of the class scores.
        head: ``fcdet`` or ``local``, see the module's docstring.
        width: factor of every layer's channels; ours, for small experiments.
        dropout: probability of dropping an input of the last layer.
        loss_class, loss_box, loss_object, loss_background: weights of the terms of eq. 3.
    """

    classes: tuple[str, ...] = VOC_CLASSES
    head: Literal["fcdet", "local"] = "fcdet"
    width: float = 1.0
    dropout: float = 0.5
    loss_class: float = 1.0
    loss_box: float = 5.0
    loss_object: float = 1.0
    loss_background: float = 0.5


class YoloV1(DarknetDetector):
    """The detector: ``forward``, ``loss`` and ``decode``."""

    kind = "yolo-v1"
    config_type = YoloV1Config
    input_rule = InputRule(SIDE_PX, SIDE_PX, fixed=True)
    selection = Selection(score=0.2, nms_iou=0.4)  # darknet's test

    def __init__(self, config: YoloV1Config | None = None) -> None:
        super().__init__()
        self.config: YoloV1Config = config or YoloV1Config()
        local = self.config.head == "local"
        self.boxes_per_cell = 3 if local else 2
        self.backbone = nn.Sequential()
        channels, convolutions = 3, 0
        for i, spec in enumerate(BACKBONE):
            if isinstance(spec, str):
                self.backbone.add_module(f"pool{i}", nn.MaxPool2d(2))
                continue
            convolutions += 1
            kernel, out, stride = spec
            out = self._scaled(out)
            layer = Convolution(channels, out, kernel, stride, batch_norm=local)
            self.backbone.add_module(f"conv{convolutions}", layer)
            channels = out
        outputs = CELLS * (len(self.config.classes) + 5 * self.boxes_per_cell)
        self.hidden: nn.Linear | LocallyConnected2d
        if local:
            hidden = CELLS * self._scaled(256)
            self.hidden = LocallyConnected2d(channels, self._scaled(256), 3, (GRID, GRID))
        else:
            hidden = self._scaled(4096)
            self.hidden = nn.Linear(CELLS * channels, hidden)
        self.dropout = nn.Dropout(self.config.dropout)
        self.output = nn.Linear(hidden, outputs)
        initialize(self, self.output)

    def _scaled(self, channels: int) -> int:
        return max(1, round(channels * self.config.width))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 448, 448) RGB pixels from 0 to 255, any dtype, to (N, 49 * (C + 5B)) answers."""
        if tuple(images.shape[-2:]) != (SIDE_PX, SIDE_PX):
            raise ValueError(f"YOLO v1 takes {SIDE_PX}x{SIDE_PX}, not {tuple(images.shape)}")
        x = self.backbone(images.to(self.output.weight.dtype) / 255)
        if self.config.head == "fcdet":
            x = x.flatten(1)
        x = F.leaky_relu(self.hidden(x), LEAK).flatten(1)
        raw: Tensor = self.output(self.dropout(x))
        return raw

    def split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Answers to (N, 49, C) classes, (N, 49, B) confidences, (N, 49, B, 4) coordinates."""
        c, b = len(self.config.classes), self.boxes_per_cell
        classes, confidence, coordinates = torch.split(raw, [CELLS * c, CELLS * b, CELLS * b * 4], dim=1)
        return (classes.reshape(-1, CELLS, c), confidence.reshape(-1, CELLS, b), coordinates.reshape(-1, CELLS, b, 4))

    def boxes(self, coordinates: Tensor) -> Tensor:
        """(..., 49, B, 4) offset in the cell, square roots of the size, to xyxy in input pixels."""
        center = (grid_cells(GRID, GRID, coordinates.device)[:, None] + coordinates[..., :2]) / GRID
        return to_corners(torch.cat([center, coordinates[..., 2:].square()], dim=-1)) * SIDE_PX

    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 49 B, 4) xyxy boxes, (N, 49 B) scores, (N, 49 B) class ids.

        The score is confidence times the best class probability (eq. 1), linear outputs that are cut to 0..1.
        """
        classes, confidence, coordinates = self.split(raw)
        probability, class_id = classes.max(dim=-1)
        score = confidence.clamp(0, 1) * probability.clamp(0, 1)[..., None]
        boxes = self.boxes(coordinates).clamp(0, SIDE_PX)
        class_id = class_id[..., None].expand_as(score)
        return boxes.flatten(1, 2), score.flatten(1), class_id.flatten(1)

    # ----------------------------------------------------------------- loss

    def targets(self, labels: Labels) -> YoloTargets:
        """An object belongs to the cell of its center; of several the first (section 2).

        A cell without object whose center lies in a region has no background loss.
        """
        images = zip(labels.boxes, labels.classes, labels.regions, strict=True)
        assigned = [assign(b / SIDE_PX, c, r / SIDE_PX) for b, c, r in images]
        return YoloTargets(*(torch.stack(field) for field in zip(*assigned, strict=True)))

    def loss(self, raw: Tensor, targets: YoloTargets) -> dict[str, Tensor]:
        """The terms of eq. 3: sums of squares over an image, means over the batch."""
        config = self.config
        images = self.sum_over_processes(torch.full((), len(raw), device=raw.device))
        classes, confidence, coordinates = self.split(raw.float())
        found = targets.present
        box = targets.box[found]  # (n, 4)
        overlap, responsible = self._responsible(coordinates.detach(), targets)
        mine = torch.arange(len(box), device=raw.device), responsible

        wanted = F.one_hot(targets.class_id[found], len(config.classes)).to(classes.dtype)
        learned = torch.cat([box[:, :2], box[:, 2:].sqrt()], dim=1)
        background = (~found & ~targets.ignored)[..., None].expand_as(confidence).clone()
        others = torch.ones_like(confidence[found], dtype=torch.bool)
        others[mine] = False  # the boxes of an object's cell that are not responsible for it
        background[found] = others
        terms = {
            "class": config.loss_class * (classes[found] - wanted).square().sum(),
            "object": config.loss_object * (confidence[found][mine] - overlap).square().sum(),
            "background": config.loss_background * confidence[background].square().sum(),
            "box": config.loss_box * (coordinates[found][mine] - learned).square().sum(),
        }
        return {name: term / images for name, term in terms.items()}

    def _responsible(self, coordinates: Tensor, targets: YoloTargets) -> tuple[Tensor, Tensor]:
        """Which box learns the object: (n,) its IoU, which is what it learns to say, its index.

        The one of largest IoU; where none overlaps, the nearest by squared distance of (x, y, w, h), as in darknet.
        """
        found = targets.present
        mine = to_center(self.boxes(coordinates)[found] / SIDE_PX)  # (n, B, 4)
        cells = grid_cells(GRID, GRID, mine.device).expand(*found.shape, 2)[found]
        box = targets.box[found]
        truth = torch.cat([(cells + box[:, :2]) / GRID, box[:, 2:]], dim=1)[:, None]
        overlaps = paired_iou(to_corners(mine), to_corners(truth))
        distance = (mine - truth).square().sum(-1)
        touches = (overlaps > 0).any(1)
        index = torch.where(touches, overlaps.argmax(1), distance.argmin(1))
        return overlaps.gather(1, index[:, None])[:, 0], index


# ------------------------------------------------------------------- targets


@dataclass(frozen=True, slots=True)
class YoloTargets(TensorTargets):
    """What each cell of a batch shall answer.

    Attributes:
        present: (N, 49) bool, the cell has an object.
        ignored: (N, 49) bool, the cell has no background loss.
        class_id: (N, 49) int64.
        box: (N, 49, 4) float32: the center's offset in the cell, 0..1, then width and height as shares of the image.
    """

    present: Tensor
    ignored: Tensor
    class_id: Tensor
    box: Tensor


def assign(boxes: Tensor, classes: Tensor, regions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The targets of one image, in the order of the fields of ``YoloTargets``; boxes are shares of the image."""
    centerd = to_center(boxes)
    present = torch.zeros(CELLS, dtype=torch.bool)
    class_id, box = torch.zeros(CELLS, dtype=torch.int64), torch.zeros(CELLS, 4)
    for one, its_class in zip(centerd, classes, strict=True):
        column, row = (one[:2] * GRID).long().clamp(0, GRID - 1).tolist()
        cell = row * GRID + column
        if not present[cell]:
            present[cell], class_id[cell] = True, its_class
            box[cell, :2] = one[:2] * GRID - one.new_tensor([column, row])
            box[cell, 2:] = one[2:]
    middle = (grid_cells(GRID, GRID, boxes.device) + 0.5) / GRID
    return present, inside_any(middle, regions) & ~present, class_id, box
