"""ConvDet: anchors, targets, loss and decoding on any backbone of stride 16.

The detection layer of SqueezeDet (arXiv 1612.01051, section 3.2) is one 3x3
convolution that says of every anchor of every cell which class it holds, how sure
that is, and how the anchor must move to fit. SqueezeDet, SqueezeDet+,
VGG16+ConvDet and ResNet50+ConvDet differ in what comes before it.

Two geometries live here, and nothing else depends on which one is chosen:

``paper``    what the paper measured and its code computes: 1242x375, the backbone's own
             padding, anchor centres at k*W/(n+1), +1 pixel when corners become
             centres, the code's loss constants.
``default``  any size that is a multiple of 16, anchors of cell i centred on
             (i + 0.5) * 16 (SqueezeDet's cell looks at pixel 16 i + 7, half a pixel
             beside), no +1, plain cross-entropy, several anchors per object,
             regions without loss.

docs/traps.md lists the differences. Boxes are xyxy in network-input pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.data.anchors import ANCHORS_A
from squeezedet.detectors.convdet_targets import Assignment, Targets, assign
from squeezedet.detectors.geometry import paired_giou, paired_iou
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.detectors.normalise import MeanSubtracted
from squeezedet.detectors.resnet import ResNet50
from squeezedet.detectors.squeezedet import (
    SQUEEZEDET,
    SQUEEZEDET_PLUS,
    Geometry,
    SqueezeDetBackbone,
    with_widths,
)
from squeezedet.detectors.vgg import VGG16
from squeezedet.runtime.postprocess import Selection
from squeezedet.runtime.preprocess import STRIDE, InputRule

PAPER_SIZE = (1242, 375)
EXP_THRESHOLD = 1.0
VGG16_FROZEN = ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
BackboneName = Literal["squeezedet", "squeezedet-plus", "vgg16", "resnet50", "own"]
FIRE_LAYERS = {"squeezedet": SQUEEZEDET, "squeezedet-plus": SQUEEZEDET_PLUS}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvDetConfig:
    """What a ConvDet detector is built from.

    Attributes:
        backbone: the layers before ConvDet; ``own`` is for a module of yours.
        widths: channels of each convolution of SqueezeDet's or SqueezeDet+'s backbone, see
            ``squeezedet.widths``; empty for the paper's.
        classes: class names; the channel order of the class scores.
        anchors: (width, height) of each anchor, in network-input pixels.
        geometry: ``default`` or ``paper``, see the module's docstring.
        size: (width, height) of the input: the only one in ``paper``, and in ``default`` the one
            whose number of pixels an image gets.
        dropout: probability of dropping an input of ConvDet.
        loss_class, loss_box, loss_object, loss_background: weights of the terms
            (1, 5, 75, 100 in section 3.3 and the code).
        loss_iou: weight of the extra term 1 - GIoU of the decoded box.
        loss_focal: weight of the quality focal loss (arXiv 2006.04388, eq. 6) of the confidence,
            which counts each background anchor by how wrong it is; it takes the place of
            ``loss_object`` and ``loss_background``, which are then without effect. 0 for the
            paper's squared errors.
        anchors_per_object, match_iou, ignore_iou: see ``Assignment``.

    Raises:
        ValueError: the backbone cannot have these widths.
    """

    backbone: BackboneName = "squeezedet"
    widths: tuple[int, ...] = ()
    classes: tuple[str, ...] = ("car", "pedestrian", "cyclist")
    anchors: tuple[tuple[int, int], ...] = ANCHORS_A
    geometry: Geometry = "default"
    size: tuple[int, int] = (1248, 384)
    dropout: float = 0.3
    loss_class: float = 1.0
    loss_box: float = 5.0
    loss_object: float = 75.0
    loss_background: float = 100.0
    loss_iou: float = 2.0
    loss_focal: float = 0.0
    anchors_per_object: int = 8
    match_iou: float = 0.75
    ignore_iou: float = 0.5

    def __post_init__(self) -> None:
        if self.widths:
            if self.backbone not in FIRE_LAYERS:
                raise ValueError(f"widths are SqueezeDet's to choose, not {self.backbone}'s")
            with_widths(FIRE_LAYERS[self.backbone], self.widths)


# One anchor an object, every other anchor background, dropout 0.5: the paper and its code.
PAPER = ConvDetConfig(
    geometry="paper",
    size=PAPER_SIZE,
    dropout=0.5,
    loss_iou=0.0,
    anchors_per_object=1,
    ignore_iou=1.0,
)


class ConvDet(DetectionNetwork):
    """A detector of one 3x3 convolution on a backbone.

    Args:
        config: what to build; SqueezeDet by default.
        backbone: with ``config.backbone == "own"``: a module that takes (N, 3, H, W) RGB pixels
            from 0 to 255 and gives (N, C, H / 16, W / 16); C is its attribute ``channels``.

    Raises:
        ValueError: a backbone is given and not asked for, or the other way round.
    """

    kind = "convdet"
    config_type = ConvDetConfig
    config: ConvDetConfig
    shapes: Tensor

    def __init__(
        self, config: ConvDetConfig | None = None, backbone: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or ConvDetConfig()
        if (config.backbone == "own") != (backbone is not None):
            raise ValueError(f"a module is given with backbone='own', not {config.backbone!r}")
        self.backbone = backbone or new_backbone(config)
        outputs = len(config.anchors) * (len(config.classes) + 1 + 4)
        self.dropout = nn.Dropout(config.dropout)
        channels: int = getattr(self.backbone, "channels")  # noqa: B009 - nn.Module says Tensor
        self.convdet = nn.Conv2d(channels, outputs, 3, padding=1)
        self.register_buffer("shapes", torch.tensor(config.anchors).float(), persistent=False)
        # Truncated normal at 2 sigma, as the paper's code.
        nn.init.trunc_normal_(self.convdet.weight, std=0.0001, a=-0.0002, b=0.0002)
        nn.init.zeros_(self.get_parameter("convdet.bias"))
        paper = config.geometry == "paper"
        self.assignment = Assignment(
            anchors_per_object=config.anchors_per_object,
            match_iou=config.match_iou,
            ignore_iou=config.ignore_iou,
        )
        self.input_rule = InputRule(*config.size, fixed=paper)
        self.selection = Selection(candidates=64) if paper else Selection()
        self.frozen = tuple(f"backbone.{name}" for name in getattr(self.backbone, "frozen", ()))

    # -------------------------------------------------------------- network

    def forward(self, images: Tensor) -> Tensor:
        """Run the network.

        Args:
            images: (N, 3, H, W) RGB pixels from 0 to 255, any dtype.

        Returns:
            (N, K * (C + 5), H / 16, W / 16): for each of K anchors C class logits,
            then K confidence logits, then K x 4 deltas (section 2 of the code's layout).
        """
        size = (images.shape[-1], images.shape[-2])
        if self.config.geometry == "paper":
            if size != self.config.size:
                wanted = "x".join(map(str, self.config.size))
                raise ValueError(f"the paper's geometry is {wanted}, not {tuple(images.shape)}")
        elif size[0] % STRIDE or size[1] % STRIDE:
            raise ValueError(f"sides must be multiples of {STRIDE}: {tuple(images.shape)}")
        raw: Tensor = self.convdet(self.dropout(self.backbone(images.to(self.shapes.dtype))))
        return raw

    def split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ConvDet's map to (N, A, C) class logits, (N, A) confidence logits, (N, A, 4) deltas.

        A = H * W * K anchors, ordered by row, column, anchor.
        """
        n, _, h, w = raw.shape
        k, c = len(self.config.anchors), len(self.config.classes)
        logits, confidence, deltas = torch.split(raw.permute(0, 2, 3, 1), [k * c, k, k * 4], dim=-1)
        anchors = h * w * k
        return (
            logits.reshape(n, anchors, c),
            confidence.reshape(n, anchors),
            deltas.reshape(n, anchors, 4),
        )

    def folded(self) -> Self:
        """A copy without batch normalisation, see ``DetectionNetwork.folded``."""
        network = super().folded()
        for module in network.modules():
            if isinstance(module, ResNet50):
                module.fold()
        return network

    def fused(self) -> Self:
        """A folded copy whose first convolution also subtracts the mean, where it can."""
        network = self.folded()
        if isinstance(network.backbone, SqueezeDetBackbone):
            network.backbone.fold_mean()
        return network

    def subtract_confidence(self, logit: float) -> bool:
        """Subtract a number from every confidence logit."""
        classes, anchors = len(self.config.classes), len(self.config.anchors)
        with torch.no_grad():
            self.get_parameter("convdet.bias")[classes * anchors : (classes + 1) * anchors] -= logit
        return True

    # -------------------------------------------------------------- anchors

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(columns, rows) of the feature map for an input of (width, height)."""
        own = getattr(self.backbone, "grid", None)
        if self.config.geometry == "paper" and own:
            columns, rows = own(image_size)
            return columns, rows
        return -(-image_size[0] // STRIDE), -(-image_size[1] // STRIDE)

    def image_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the input that gives a (columns, rows) grid."""
        if self.config.geometry == "paper":
            return self.config.size
        return grid[0] * STRIDE, grid[1] * STRIDE

    def anchors(self, grid: tuple[int, int]) -> Tensor:
        """(columns, rows) of the feature map to (A, 4) anchors: centre, width, height."""
        columns, rows = grid
        device = self.shapes.device
        if self.config.geometry == "paper":
            width, height = self.config.size
            x = torch.arange(1, columns + 1, device=device) * (width / (columns + 1))
            y = torch.arange(1, rows + 1, device=device) * (height / (rows + 1))
        else:
            x = (torch.arange(columns, device=device) + 0.5) * STRIDE
            y = (torch.arange(rows, device=device) + 0.5) * STRIDE
        k = len(self.config.anchors)
        centres = torch.stack(
            [x.view(1, -1, 1).expand(rows, columns, k), y.view(-1, 1, 1).expand(rows, columns, k)],
            dim=-1,
        )
        return torch.cat([centres, self.shapes.expand(rows, columns, k, 2)], dim=-1).view(-1, 4)

    def boxes(self, deltas: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, A, 4) deltas to (N, A, 4) xyxy boxes inside the image (eq. 1)."""
        anchors = self.anchors(grid)
        centre = anchors[:, :2] + anchors[:, 2:] * deltas[..., :2]
        size = anchors[:, 2:] * safe_exp(deltas[..., 2:])
        width, height = self.image_size(grid)
        paper = self.config.geometry == "paper"
        edge = 1 if paper else 0
        low, high = centre - size / 2, centre + size / 2
        x1, x2 = (x[..., 0].clamp(0, width - edge) for x in (low, high))
        y1, y2 = (y[..., 1].clamp(0, height - edge) for y in (low, high))
        # Corners to centre with +1, as the code does; its corners never lose it again (trap 3).
        return torch.stack([x1, y1, x2 + edge, y2 + edge], dim=-1)

    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ConvDet's map to (N, A, 4) xyxy boxes, (N, A) scores, (N, A) class ids.

        The score is confidence times the best class probability (section 3.1).
        """
        logits, confidence, deltas = self.split(raw)
        probability, class_id = logits.softmax(dim=-1).max(dim=-1)
        boxes = self.boxes(deltas, (raw.shape[3], raw.shape[2]))
        return boxes, probability * confidence.sigmoid(), class_id

    # ----------------------------------------------------------------- loss

    def targets(
        self,
        boxes: Sequence[Tensor],
        classes: Sequence[Tensor],
        regions: Sequence[Tensor],
        image_size: tuple[int, int],
    ) -> Targets:
        """Give the objects of a batch to anchors; see ``DetectionNetwork.targets``."""
        anchors = self.anchors(self.grid(image_size)).cpu()
        if self.config.geometry == "paper":  # trap 3: labels become one pixel larger, too
            boxes = [b + b.new_tensor([0, 0, 1, 1]) for b in boxes]
        images = []
        for b, c, r in zip(boxes, classes, regions, strict=True):
            solid = (b[:, 2:] > b[:, :2]).all(dim=1)  # a box without area has no logarithm
            images.append(assign(anchors, b[solid], c[solid], r, self.assignment))
        return Targets(*(torch.stack(field) for field in zip(*images, strict=True)))

    def loss(self, raw: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The terms of section 3.3, each with its weight; their sum is what is minimised."""
        config, paper = self.config, self.config.geometry == "paper"
        logits, confidence, deltas = (part.float() for part in self.split(raw))
        positive = targets.positive
        objects = self.sum_over_processes(positive.sum()).clamp(min=1)
        grid = (raw.shape[3], raw.shape[2])

        p_logits, p_class = logits[positive], targets.class_id[positive]
        if paper:  # binary cross-entropies on softmax outputs, summed over the classes (trap 7)
            p, y = p_logits.softmax(-1), F.one_hot(p_class, len(config.classes)).to(p_logits.dtype)
            epsilon = 1e-16
            class_sum = -(y * (p + epsilon).log() + (1 - y) * (1 - p + epsilon).log()).sum()
        else:
            class_sum = F.cross_entropy(p_logits, p_class, reduction="sum")
        delta_sum = (deltas[positive] - targets.deltas[positive]).square().sum()

        decoded = self.boxes(deltas, grid)[positive]
        wanted = targets.boxes[positive]
        overlap = paired_iou(decoded.detach(), wanted)
        terms = {"class": config.loss_class * class_sum / objects}
        if config.loss_focal:
            wanted_confidence = torch.zeros_like(confidence)
            wanted_confidence[positive] = overlap
            focal = quality_focal(confidence, wanted_confidence)[~targets.ignored].sum()
            terms["focal"] = config.loss_focal * focal / objects
        else:
            terms |= self._squared_errors(confidence.sigmoid(), overlap, targets)
        terms["box"] = config.loss_box * delta_sum / objects
        if config.loss_iou:
            terms["iou"] = config.loss_iou * (1 - paired_giou(decoded, wanted)).sum() / objects
        return terms

    def _squared_errors(
        self, gamma: Tensor, overlap: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        """The confidence terms of section 3.3: (N, A) confidences, (P,) IoUs of the positives."""
        config, positive = self.config, targets.positive
        count = self.sum_over_processes(positive.sum())
        object_sum = (gamma[positive] - overlap).square().sum()
        background = ~positive & ~targets.ignored
        background_sum = gamma[background].square().sum()
        if config.geometry == "paper":  # N over the batch, A per image, 1 / batch (trap 8)
            batch = self.sum_over_processes(torch.tensor(len(gamma), device=gamma.device))
            object_sum = object_sum / batch
            backgrounds = (positive.shape[1] - count).clamp(min=1) * batch
        else:
            backgrounds = self.sum_over_processes(background.sum()).clamp(min=1)
        return {
            "object": config.loss_object * object_sum / count.clamp(min=1),
            "background": config.loss_background * background_sum / backgrounds,
        }


def new_backbone(config: ConvDetConfig) -> nn.Module:
    """The backbone that a configuration names, with the random weights of its paper."""
    if layers := FIRE_LAYERS.get(config.backbone):
        layers = with_widths(layers, config.widths) if config.widths else layers
        return SqueezeDetBackbone(layers, config.geometry)
    match config.backbone:
        case "vgg16":
            return MeanSubtracted(VGG16(), VGG16_FROZEN)
        case "resnet50":
            return MeanSubtracted(ResNet50(), ResNet50.frozen)
    raise ValueError(f"no backbone {config.backbone!r}")


# ---------------------------------------------------------------- arithmetic


def safe_exp(x: Tensor) -> Tensor:
    """exp(x) up to 1, its tangent e * x beyond: no overflow, and a gradient everywhere."""
    slope = torch.e * x
    return torch.where(x > EXP_THRESHOLD, slope, x.clamp(max=EXP_THRESHOLD).exp())


def quality_focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """|wanted - sigmoid|^2 times the binary cross-entropy, element by element (beta = 2)."""
    error = (wanted - logits.sigmoid()).square()
    return error * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
