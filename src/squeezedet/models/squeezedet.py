"""SqueezeDet, from top to bottom: fire modules, layers, anchors, assignment, loss, decoding.

Wu, Iandola, Jin, Keutzer: "SqueezeDet: Unified, Small, Low Power Fully Convolutional Neural Networks for Real-Time
Object Detection for Autonomous Driving", arXiv 1612.01051.

A backbone makes a feature map of stride 16. ConvDet, one 3x3 convolution, says of every anchor of every cell which
class it holds, how sure that is, and how the anchor must move to fit (section 3.2). SqueezeDet, SqueezeDet+,
VGG16+ConvDet and ResNet50+ConvDet differ in the backbone.

``ConvDet`` takes any size that is a multiple of 16; the anchors of cell i are centered on (i + 0.5) * 16; several
anchors may learn one object, and some areas have no loss. ``PaperConvDet`` is what the paper measured and its code
computes: 1242x375 pixels, unpadded layers, anchor centers at k * W / (n + 1), one pixel added where corners become
centers, and the loss of the code. docs/traps.md lists the differences ("trap").

Boxes are xyxy in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.data.anchors import ANCHORS_A
from squeezedet.models.backbones import BACKBONES, MeanSubtracted, ResNet50
from squeezedet.models.layers import (
    SubtractMean,
    area,
    fold_mean,
    paired_giou,
    paired_intersection,
    paired_iou,
    to_center,
    to_corners,
)
from squeezedet.models.network import DetectionNetwork, Labels, TensorTargets
from squeezedet.preprocess import STRIDE, InputRule
from squeezedet.runtime.postprocess import Selection

PAPER_SIZE = (1242, 375)

# ------------------------------------------------------------ layers (section 3.2, table 1)


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """A convolution with bias and ReLU, stride 2."""

    name: str
    channels: int
    kernel: int


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """3x3 max pooling with stride 2; ``pad`` is the side that is padded where sides are."""

    name: str
    pad: Literal["start", "end"] = "end"


@dataclass(frozen=True, slots=True)
class FireSpec:
    """Channels of a fire module: squeeze 1x1, then expand 1x1 and expand 3x3 side by side."""

    name: str
    squeeze: int
    expand1x1: int
    expand3x3: int


Layers = tuple[ConvSpec | PoolSpec | FireSpec, ...]

# Padding conv1, the first and the second pool at the end and the last one at the start puts the center of the receptive
# field of cell i on pixel 16 i + 7, the middle of its stride cell.
SQUEEZEDET: Layers = (
    ConvSpec("conv1", 64, kernel=3),
    PoolSpec("pool1"),
    FireSpec("fire2", 16, 64, 64),
    FireSpec("fire3", 16, 64, 64),
    PoolSpec("pool3"),
    FireSpec("fire4", 32, 128, 128),
    FireSpec("fire5", 32, 128, 128),
    PoolSpec("pool5", pad="start"),
    FireSpec("fire6", 48, 192, 192),
    FireSpec("fire7", 48, 192, 192),
    FireSpec("fire8", 64, 256, 256),
    FireSpec("fire9", 64, 256, 256),
    FireSpec("fire10", 96, 384, 384),
    FireSpec("fire11", 96, 384, 384),
)

SQUEEZEDET_PLUS: Layers = (
    ConvSpec("conv1", 96, kernel=7),
    PoolSpec("pool1"),
    FireSpec("fire2", 96, 64, 64),
    FireSpec("fire3", 96, 64, 64),
    FireSpec("fire4", 192, 128, 128),
    PoolSpec("pool4"),
    FireSpec("fire5", 192, 128, 128),
    FireSpec("fire6", 288, 192, 192),
    FireSpec("fire7", 288, 192, 192),
    FireSpec("fire8", 384, 256, 256),
    PoolSpec("pool8", pad="start"),
    FireSpec("fire9", 384, 256, 256),
    FireSpec("fire10", 384, 256, 256),
    FireSpec("fire11", 384, 256, 256),
)

FIRE_LAYERS = {"squeezedet": SQUEEZEDET, "squeezedet-plus": SQUEEZEDET_PLUS}


def widths(layers: Layers) -> tuple[int, ...]:
    """The channels of each convolution, in order; a fire module has three (squeeze, 1x1, 3x3)."""
    channels: list[int] = []
    for layer in layers:
        match layer:
            case ConvSpec():
                channels.append(layer.channels)
            case FireSpec():
                channels += layer.squeeze, layer.expand1x1, layer.expand3x3
    return tuple(channels)


def with_widths(layers: Layers, channels: tuple[int, ...]) -> Layers:
    """The same layers with other channels; too few, too many or none of a layer are a ValueError."""
    if len(channels) != len(widths(layers)) or min(channels) < 1:
        raise ValueError(
            f"widths must be {len(widths(layers))} positive numbers, one for each convolution "
            f"before ConvDet, not {channels}"
        )
    rest = iter(channels)

    def renewed() -> Iterator[ConvSpec | PoolSpec | FireSpec]:
        for layer in layers:
            match layer:
                case ConvSpec():
                    yield replace(layer, channels=next(rest))
                case FireSpec():
                    yield FireSpec(layer.name, next(rest), next(rest), next(rest))
                case PoolSpec():
                    yield layer

    return tuple(renewed())


def scaled(layers: Layers, factor: float) -> tuple[int, ...]:
    """The widths of all layers times a factor, to the nearest integer."""
    return tuple(max(1, round(factor * channels)) for channels in widths(layers))


class FireModule(nn.Module):
    """(N, C, H, W) to (N, expand1x1 + expand3x3, H, W) (SqueezeNet, section 3.2)."""

    def __init__(self, in_channels: int, squeeze: int, expand1x1: int, expand3x3: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand1x1, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand3x3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze1x1(x), inplace=True)
        # Each has its own ReLU, so that an engine fuses it with the convolution.
        expands = (F.relu(expand(x), inplace=True) for expand in (self.expand1x1, self.expand3x3))
        return torch.cat([*expands], dim=1)


class SqueezeDetBackbone(nn.Module):
    """(N, 3, H, W) RGB pixels to (N, channels, H / 16, W / 16) features.

    Attributes:
        layers: ``SQUEEZEDET`` or ``SQUEEZEDET_PLUS``, with channels of any width.
        channels: of the feature map.
        padding: pixels left, right, top and bottom of the image, for ``torch.nn.functional.pad``.
    """

    frozen = ("conv1",)

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.layers = layers
        self.normalize: nn.Module = SubtractMean()
        channels, kernel = 3, 2
        for layer in layers:
            match layer:
                case ConvSpec():
                    kernel = layer.kernel
                    self.add_module(layer.name, nn.Conv2d(channels, layer.channels, kernel, stride=2))
                    channels = layer.channels
                case FireSpec(name, squeeze, expand1x1, expand3x3):
                    self.add_module(name, FireModule(channels, squeeze, expand1x1, expand3x3))
                    channels = expand1x1 + expand3x3
        self.channels = channels
        start, end = (kernel - 2) // 2, (kernel - 1) // 2
        self.padding = (start, end, start, end)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal at 2 sigma: 0.001 for conv1, 0.01 for fires, as the paper's code."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                sigma = 0.001 if name.startswith("conv1.") else 0.01
                nn.init.trunc_normal_(parameter, std=sigma, a=-2 * sigma, b=2 * sigma)

    def forward(self, images: Tensor) -> Tensor:
        return self.run(self.layers, self.normalize(self.pad(images)))

    def run(self, layers: Layers, x: Tensor) -> Tensor:
        for layer in layers:
            match layer:
                case PoolSpec():
                    x = self.pool(layer, x)
                case ConvSpec(name):
                    x = F.relu(self.get_submodule(name)(x), inplace=True)
                case FireSpec(name):
                    x = self.get_submodule(name)(x)
        return x

    def pad(self, images: Tensor) -> Tensor:
        """Pad for conv1, before the mean is subtracted: so conv1 can take over the mean."""
        return F.pad(images, self.padding)

    def pool(self, spec: PoolSpec, x: Tensor) -> Tensor:
        """Halve the sides of a map, rounding up."""
        at_start = spec.pad == "start"
        return F.max_pool2d(x, 3, 2, padding=int(at_start), ceil_mode=not at_start)

    def fold_mean(self) -> None:
        if isinstance(self.normalize, SubtractMean):
            fold_mean(self.get_submodule("conv1"), self.normalize.mean)
            self.normalize = nn.Identity()


def fire_names(backbone: nn.Module) -> dict[str, str]:
    """Tensor of a SqueezeNet -> the parameter of a detector with such a ``backbone``, up to fire9."""
    if not isinstance(backbone, SqueezeDetBackbone):
        return {}
    own = ("fire10", "fire11")
    return {name: f"backbone.{name}" for name, _ in backbone.named_parameters() if not name.startswith(own)}


class PaperBackbone(SqueezeDetBackbone):
    """SqueezeDet's layers without padding in conv1 and the pools, as the paper's code has them."""

    def pad(self, images: Tensor) -> Tensor:
        return images

    def pool(self, spec: PoolSpec, x: Tensor) -> Tensor:
        """3x3 max pooling with stride 2; an odd last row or column is lost."""
        return F.max_pool2d(x, 3, 2)

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(columns, rows) of the feature map of an image of (width, height)."""
        columns, rows = image_size
        for layer in self.layers:
            kernel = layer.kernel if isinstance(layer, ConvSpec) else 3
            if not isinstance(layer, FireSpec):
                columns, rows = (columns - kernel) // 2 + 1, (rows - kernel) // 2 + 1
        return columns, rows


# ------------------------------------------------------------ anchors and their assignment


def grid_anchors(x: Tensor, y: Tensor, shapes: Tensor) -> Tensor:
    """(columns,) and (rows,) centers and (K, 2) shapes to (A, 4) anchors: center, width, height.

    A = rows * columns * K, ordered by row, column, shape.
    """
    cells = (y.shape[0], x.shape[0], len(shapes))
    centers = torch.stack([x.view(1, -1, 1).expand(cells), y.view(-1, 1, 1).expand(cells)], dim=-1)
    return torch.cat([centers, shapes.expand(*cells, 2)], dim=-1).view(-1, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """How objects are given to anchors; a part of the configuration of a network with anchors.

    Attributes:
        anchors_per_object: how many anchors may learn one object.
        match_iou: the best anchor always learns its object; a further one does when its IoU is above this share of the
            best one's.
        ignore_iou: an anchor above this IoU with an object it does not learn is no background.
    """

    anchors_per_object: int = 8
    match_iou: float = 0.75
    ignore_iou: float = 0.5


@dataclass(frozen=True, slots=True)
class ConvDetTargets(TensorTargets):
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


def assign_batch(anchors: Tensor, labels: Labels, rule: Assignment) -> ConvDetTargets:
    labels = labels.without_empty()
    objects = zip(labels.boxes, labels.classes, labels.regions, strict=True)
    images = [assign(anchors, *image, rule) for image in objects]
    return ConvDetTargets(*(torch.stack(field) for field in zip(*images, strict=True)))


def assign(
    anchors: Tensor, boxes: Tensor, classes: Tensor, regions: Tensor, rule: Assignment
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The targets of one image, in the order of the fields of ``ConvDetTargets``.

    (A, 4) anchors (center, width, height) learn (n, 4) xyxy objects, none empty, of (n,) class ids; (m, 4) xyxy regions
    have no confidence loss.
    """
    corners = to_corners(anchors)
    overlaps = paired_iou(boxes[:, None], corners[None])  # (n, A)
    centers = to_center(boxes)
    owner = _owners(anchors, centers, overlaps, rule)
    positive = owner >= 0
    mine, their = owner[positive], anchors[positive]
    class_id = torch.zeros(len(anchors), dtype=torch.int64)
    deltas, target_boxes = torch.zeros(len(anchors), 4), torch.zeros(len(anchors), 4)
    class_id[positive] = classes[mine]
    target_boxes[positive] = boxes[mine]
    shift = (centers[mine, :2] - their[:, :2]) / their[:, 2:]
    deltas[positive] = torch.cat([shift, (centers[mine, 2:] / their[:, 2:]).log()], dim=1)

    ignored = (overlaps > rule.ignore_iou).any(dim=0) | _in_regions(corners, regions, rule)
    return positive, ignored & ~positive, class_id, deltas, target_boxes


def _owners(anchors: Tensor, centers: Tensor, overlaps: Tensor, rule: Assignment) -> Tensor:
    """(A,) index of the object that each anchor learns, -1 for none.

    First every object, in order, takes the free anchor of largest IoU; one that overlaps no free anchor takes the
    nearest by squared distance of (cx, cy, w, h). Then, up to ``anchors_per_object``, free anchors that overlap an
    object more than any other, and at least ``match_iou`` times as well as its best one, learn it too. No anchor learns
    two objects; objects beyond the number of anchors learn nothing.
    """
    owner = torch.full((len(anchors),), -1, dtype=torch.int64)
    for i, overlap in enumerate(overlaps[: len(anchors)]):
        free = owner < 0
        best = int(torch.where(free, overlap, -1).argmax())
        if overlap[best] <= 0 or not free[best]:
            distance = (anchors - centers[i]).square().sum(1)
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
    pairs = corners[:, None], regions[None]
    covered = paired_intersection(*pairs) / area(corners)[:, None]
    overlaps = paired_iou(*pairs)  # (A, m)
    best = overlaps.amax(dim=0).clamp(min=1e-6)
    return ((covered > 0.5) | (overlaps >= rule.match_iou * best)).any(dim=1)


# ------------------------------------------------------------ arithmetic of loss and decoding

EXP_THRESHOLD = 1.0


def safe_exp(x: Tensor) -> Tensor:
    """exp(x) up to 1, its tangent e * x beyond: no overflow, and a gradient everywhere."""
    slope = torch.e * x
    return torch.where(x > EXP_THRESHOLD, slope, x.clamp(max=EXP_THRESHOLD).exp())


def decode_boxes(deltas: Tensor, anchors: Tensor, image_size: tuple[int, int], edge: int = 0) -> Tensor:
    """(N, A, 4) deltas of (A, 4) anchors (center, width, height) to (N, A, 4) xyxy boxes inside the image (eq. 1).

    ``edge`` is 1 in the paper's code, which counts pixels: those between the last corner of the image and its size,
    which are added to the lower right corner of a box (trap 3).
    """
    center = anchors[:, :2] + anchors[:, 2:] * deltas[..., :2]
    size = anchors[:, 2:] * safe_exp(deltas[..., 2:])
    low, high = center - size / 2, center + size / 2
    width, height = image_size
    x1, x2 = (x[..., 0].clamp(0, width - edge) for x in (low, high))
    y1, y2 = (y[..., 1].clamp(0, height - edge) for y in (low, high))
    return torch.stack([x1, y1, x2 + edge, y2 + edge], dim=-1)


def quality_focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """|wanted - sigmoid|^2 times the binary cross-entropy, element by element (beta = 2)."""
    error = (wanted - logits.sigmoid()).square()
    return error * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


# ------------------------------------------------------------ the detector

BackboneName = Literal["squeezedet", "squeezedet-plus", "vgg16", "resnet50", "own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvDetConfig(Assignment):
    """What a ConvDet detector is built from, beside the assignment of objects.

    Attributes:
        backbone: the layers before ConvDet; ``own`` is for a module of yours.
        widths: channels of each convolution of SqueezeDet's or SqueezeDet+'s backbone, see ``squeezedet.widths``; empty
            for the paper's.
        classes: class names; the channel order of the class scores.
        anchors: (width, height) of each anchor, in network-input pixels.
        geometry: ``default`` for ``ConvDet``, ``paper`` for ``PaperConvDet``.
        size: (width, height) of the input: of ``PaperConvDet`` the only one, of ``ConvDet`` the one whose number of
            pixels an image gets.
        dropout: probability of dropping an input of ConvDet.
        loss_class, loss_box, loss_object, loss_background: weights of the terms (1, 5, 75, 100 in section 3.3 and the
            code).
        loss_iou: weight of the extra term 1 - GIoU of the decoded box.
        loss_focal: weight of the quality focal loss (arXiv 2006.04388, eq. 6) of the confidence, which counts each
            background anchor by how wrong it is; it takes the place of ``loss_object`` and ``loss_background``, which
            are then without effect. 0 for the paper's squared errors.

    Raises:
        ValueError: the backbone cannot have these widths.
    """

    backbone: BackboneName = "squeezedet"
    widths: tuple[int, ...] = ()
    classes: tuple[str, ...] = ("car", "pedestrian", "cyclist")
    anchors: tuple[tuple[int, int], ...] = ANCHORS_A
    geometry: Literal["default", "paper"] = "default"
    size: tuple[int, int] = (1248, 384)
    dropout: float = 0.3
    loss_class: float = 1.0
    loss_box: float = 5.0
    loss_object: float = 75.0
    loss_background: float = 100.0
    loss_iou: float = 2.0
    loss_focal: float = 0.0

    def __post_init__(self) -> None:
        if self.widths:
            if self.backbone not in FIRE_LAYERS:
                raise ValueError(f"widths are SqueezeDet's to choose, not {self.backbone}'s")
            with_widths(FIRE_LAYERS[self.backbone], self.widths)


# One anchor an object, every other anchor background, dropout 0.5: the paper and its code.
PAPER = ConvDetConfig(
    geometry="paper", size=PAPER_SIZE, dropout=0.5, loss_iou=0.0, anchors_per_object=1, ignore_iou=1.0
)


class ConvDet(DetectionNetwork):
    """A detector of one 3x3 convolution on a backbone; ``from_config`` builds either geometry.

    Args:
        config: what to build; SqueezeDet by default.
        backbone: with ``config.backbone == "own"``: a module that takes (N, 3, H, W) RGB pixels from 0 to 255 and gives
            (N, C, H / 16, W / 16); C is its attribute ``channels``.
    """

    kind = "convdet"
    config_type = ConvDetConfig
    geometry: ClassVar[str] = "default"
    fixed_size: ClassVar[bool] = False
    fire_backbone: ClassVar[type[SqueezeDetBackbone]] = SqueezeDetBackbone
    config: ConvDetConfig
    shapes: Tensor

    def __init__(self, config: ConvDetConfig | None = None, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config = config or ConvDetConfig()
        if config.geometry != self.geometry:
            raise ValueError(
                f"{type(self).__name__} has the geometry {self.geometry!r}, not "
                f"{config.geometry!r}; ConvDet.from_config builds either"
            )
        if (config.backbone == "own") != (backbone is not None):
            raise ValueError(f"a module is given with backbone='own', not {config.backbone!r}")
        self.backbone = backbone or self._new_backbone(config)
        outputs = len(config.anchors) * (len(config.classes) + 1 + 4)
        self.dropout = nn.Dropout(config.dropout)
        channels: int = getattr(self.backbone, "channels")  # noqa: B009 - nn.Module says Tensor
        self.convdet = nn.Conv2d(channels, outputs, 3, padding=1)
        self.register_buffer("shapes", torch.tensor(config.anchors).float(), persistent=False)
        # Truncated normal at 2 sigma, as the paper's code.
        nn.init.trunc_normal_(self.convdet.weight, std=0.0001, a=-0.0002, b=0.0002)
        nn.init.zeros_(self.get_parameter("convdet.bias"))
        self.input_rule = InputRule(*config.size, fixed=self.fixed_size)
        self.selection = Selection()
        self.frozen = tuple(f"backbone.{name}" for name in getattr(self.backbone, "frozen", ()))

    @classmethod
    def from_config(cls, config: Any) -> ConvDet:
        """The detector of a configuration: ``PaperConvDet`` where it has the paper's geometry."""
        return PaperConvDet(config) if config.geometry == "paper" else cls(config)

    def _new_backbone(self, config: ConvDetConfig) -> nn.Module:
        if layers := FIRE_LAYERS.get(config.backbone):
            return self.fire_backbone(with_widths(layers, config.widths or widths(layers)))
        if config.backbone not in BACKBONES:
            raise ValueError(f"no backbone {config.backbone!r}")
        return MeanSubtracted(BACKBONES[config.backbone]())

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) RGB pixels from 0 to 255, any dtype, to (N, K * (C + 5), H / 16, W / 16).

        For each of K anchors C class logits, then K confidence logits, then K x 4 deltas. A size that the network does
        not take is a ValueError.
        """
        self.check_size((images.shape[-1], images.shape[-2]))
        raw: Tensor = self.convdet(self.dropout(self.backbone(images.to(self.shapes.dtype))))
        return raw

    def check_size(self, size: tuple[int, int]) -> None:
        if size[0] % STRIDE or size[1] % STRIDE:
            raise ValueError(f"sides must be multiples of {STRIDE}: {size[0]}x{size[1]}")

    def split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ConvDet's map to (N, A, C) class logits, (N, A) confidence logits, (N, A, 4) deltas.

        A = H * W * K anchors, ordered by row, column, anchor.
        """
        n, _, h, w = raw.shape
        k, c = len(self.config.anchors), len(self.config.classes)
        logits, confidence, deltas = torch.split(raw.permute(0, 2, 3, 1), [k * c, k, k * 4], dim=-1)
        anchors = h * w * k
        return (logits.reshape(n, anchors, c), confidence.reshape(n, anchors), deltas.reshape(n, anchors, 4))

    # -------------------------------------------------------------- geometry

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(columns, rows) of the feature map for an input of (width, height)."""
        return -(-image_size[0] // STRIDE), -(-image_size[1] // STRIDE)

    def anchors(self, grid: tuple[int, int]) -> Tensor:
        """(columns, rows) of the feature map to (A, 4) anchors: center, width, height."""
        x, y = ((torch.arange(n, device=self.shapes.device) + 0.5) * STRIDE for n in grid)
        return grid_anchors(x, y, self.shapes)

    def boxes(self, deltas: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, A, 4) deltas to (N, A, 4) xyxy boxes inside the image (eq. 1)."""
        return decode_boxes(deltas, self.anchors(grid), (grid[0] * STRIDE, grid[1] * STRIDE))

    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ConvDet's map to (N, A, 4) xyxy boxes, (N, A) scores, (N, A) class ids.

        The score is confidence times the best class probability (section 3.1).
        """
        logits, confidence, deltas = self.split(raw)
        probability, class_id = logits.softmax(dim=-1).max(dim=-1)
        boxes = self.boxes(deltas, (raw.shape[3], raw.shape[2]))
        return boxes, probability * confidence.sigmoid(), class_id

    # -------------------------------------------------------------- loss (section 3.3)

    def targets(self, labels: Labels) -> ConvDetTargets:
        """Give the objects of a batch to anchors; see ``DetectionNetwork.targets``."""
        anchors = self.anchors(self.grid(labels.image_size)).cpu()
        return assign_batch(anchors, labels, self.config)

    def loss(self, raw: Tensor, targets: ConvDetTargets) -> dict[str, Tensor]:
        """The terms of section 3.3, each with its weight; their sum is what is minimized."""
        config, positive = self.config, targets.positive
        logits, confidence, deltas = (part.float() for part in self.split(raw))
        objects = self.sum_over_processes(positive.sum()).clamp(min=1)
        boxes = self.boxes(deltas, (raw.shape[3], raw.shape[2]))[positive]
        overlap = paired_iou(boxes.detach(), targets.boxes[positive])

        class_sum = self.class_error(logits[positive], targets.class_id[positive])
        terms = {"class": config.loss_class * class_sum / objects}
        if config.loss_focal:
            wanted = torch.zeros_like(confidence)
            wanted[positive] = overlap
            focal = quality_focal(confidence, wanted)[~targets.ignored].sum()
            terms["focal"] = config.loss_focal * focal / objects
        else:
            terms |= self.confidence_errors(confidence.sigmoid(), overlap, targets)
        delta_sum = (deltas[positive] - targets.deltas[positive]).square().sum()
        terms["box"] = config.loss_box * delta_sum / objects
        if config.loss_iou:
            giou = paired_giou(boxes, targets.boxes[positive])
            terms["iou"] = config.loss_iou * (1 - giou).sum() / objects
        return terms

    def class_error(self, logits: Tensor, class_id: Tensor) -> Tensor:
        """Cross-entropy of (P, C) logits and (P,) class ids, summed over the P anchors."""
        return F.cross_entropy(logits, class_id, reduction="sum")

    def confidence_errors(self, confidence: Tensor, overlap: Tensor, targets: ConvDetTargets) -> dict[str, Tensor]:
        """Squared errors of (N, A) confidences, 0 to 1, of the background and of the P anchors that learn an object,
        where the confidence shall be the (P,) IoU of box and object.
        """
        positive, background = targets.positive, ~targets.positive & ~targets.ignored
        objects = self.sum_over_processes(positive.sum()).clamp(min=1)
        object_sum = (confidence[positive] - overlap).square().sum()
        background_sum = confidence[background].square().sum()
        backgrounds = self.sum_over_processes(background.sum()).clamp(min=1)
        return {
            "object": self.config.loss_object * object_sum / objects,
            "background": self.config.loss_background * background_sum / backgrounds,
        }

    # -------------------------------------------------------------- for weights, export and compression

    def published_backbone(self) -> dict[str, str]:
        """conv1 and fire2 to fire9; of SqueezeDet+ those of a SqueezeNet with a squeeze ratio of 0.75."""
        return fire_names(self.backbone)

    def folded(self) -> Self:
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


class PaperConvDet(ConvDet):
    """The detector as the paper's code has it: one input size, its anchors and its loss."""

    geometry = "paper"
    fixed_size = True
    fire_backbone = PaperBackbone

    def __init__(self, config: ConvDetConfig | None = None, backbone: nn.Module | None = None) -> None:
        super().__init__(config or PAPER, backbone)
        self.selection = Selection(candidates=64)

    def check_size(self, size: tuple[int, int]) -> None:
        if size != self.config.size:
            width, height = self.config.size
            raise ValueError(f"the paper's geometry is {width}x{height}, not {size[0]}x{size[1]}")

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(columns, rows) of the feature map, which unpadded layers make smaller."""
        if isinstance(self.backbone, PaperBackbone):
            return self.backbone.grid(image_size)
        return super().grid(image_size)

    def anchors(self, grid: tuple[int, int]) -> Tensor:
        """Anchors on centers that share the image evenly, k * W / (n + 1) (trap 2)."""
        x, y = (
            torch.arange(1, n + 1, device=self.shapes.device) * (side / (n + 1))
            for n, side in zip(grid, self.config.size, strict=True)
        )
        return grid_anchors(x, y, self.shapes)

    def boxes(self, deltas: Tensor, grid: tuple[int, int]) -> Tensor:
        """Corners to centers with one pixel more, which the code never takes away (trap 3)."""
        return decode_boxes(deltas, self.anchors(grid), self.config.size, edge=1)

    def targets(self, labels: Labels) -> ConvDetTargets:
        """Labels become one pixel larger, too (trap 3)."""
        larger = [b + b.new_tensor([0, 0, 1, 1]) for b in labels.boxes]
        return super().targets(replace(labels, boxes=larger))

    def class_error(self, logits: Tensor, class_id: Tensor) -> Tensor:
        """Binary cross-entropies on softmax outputs, summed over the classes (trap 7)."""
        p, y = logits.softmax(-1), F.one_hot(class_id, len(self.config.classes)).to(logits.dtype)
        epsilon = 1e-16
        return -(y * (p + epsilon).log() + (1 - y) * (1 - p + epsilon).log()).sum()

    def confidence_errors(self, confidence: Tensor, overlap: Tensor, targets: ConvDetTargets) -> dict[str, Tensor]:
        """Over objects of the batch, anchors of an image, and images of the batch (trap 8)."""
        positive, background = targets.positive, ~targets.positive & ~targets.ignored
        objects = self.sum_over_processes(positive.sum())
        images = self.sum_over_processes(torch.full((), len(confidence), device=confidence.device))
        object_sum = (confidence[positive] - overlap).square().sum() / images
        background_sum = confidence[background].square().sum()
        backgrounds = (positive.shape[1] - objects).clamp(min=1) * images
        return {
            "object": self.config.loss_object * object_sum / objects.clamp(min=1),
            "background": self.config.loss_background * background_sum / backgrounds,
        }
