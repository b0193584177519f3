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
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.data.anchors import ANCHORS_A
from squeezedet.models.backbones import VGG16, ResNet50
from squeezedet.models.layers import (
    MeanSubtracted,
    SubtractMean,
    paired_giou,
    paired_iou,
    to_centre,
    to_corners,
)
from squeezedet.models.network import DetectionNetwork, TensorTargets
from squeezedet.models.squeezenet import FireModule
from squeezedet.preprocess import STRIDE, InputRule
from squeezedet.runtime.postprocess import Selection

# ---- squeezedet: SqueezeDet and SqueezeDet+: the layers before ConvDet.

Geometry = Literal["default", "paper"]


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """A convolution with bias and ReLU, stride 2."""

    name: str
    channels: int
    kernel: int


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """3x3 max pooling with stride 2; ``pad`` says which side the default geometry pads."""

    name: str
    pad: Literal["start", "end"] = "end"


@dataclass(frozen=True, slots=True)
class FireSpec:
    """squeeze 1x1, then expand 1x1 and expand 3x3 side by side (SqueezeNet, section 3.2)."""

    name: str
    squeeze: int
    expand1x1: int
    expand3x3: int


Layers = tuple[ConvSpec | PoolSpec | FireSpec, ...]

# Padding conv1, the first and the second pool at the end and the last one at the start puts
# the centre of the receptive field of cell i on pixel 16 i + 7, the middle of its stride cell.
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


def widths(layers: Layers) -> tuple[int, ...]:
    """The channels of each convolution, in order; a fire module has three (squeeze, 1x1, 3x3)."""
    found: list[int] = []
    for layer in layers:
        match layer:
            case ConvSpec(channels=channels):
                found.append(channels)
            case FireSpec(_, squeeze, expand1x1, expand3x3):
                found += squeeze, expand1x1, expand3x3
    return tuple(found)


def with_widths(layers: Layers, channels: tuple[int, ...]) -> Layers:
    """The same layers with other widths.

    Raises:
        ValueError: too few or too many of them, or one that is not positive.
    """
    if len(channels) != len(widths(layers)) or min(channels) < 1:
        raise ValueError(
            f"widths must be {len(widths(layers))} positive numbers, one for each convolution "
            f"before ConvDet, not {channels}"
        )
    left = iter(channels)
    return tuple(
        replace(layer, channels=next(left))
        if isinstance(layer, ConvSpec)
        else replace(layer, squeeze=next(left), expand1x1=next(left), expand3x3=next(left))
        if isinstance(layer, FireSpec)
        else layer
        for layer in layers
    )


def scaled(layers: Layers, factor: float) -> tuple[int, ...]:
    """The widths of all layers times a factor, to the nearest integer."""
    return tuple(max(1, round(factor * channels)) for channels in widths(layers))


class SqueezeDetBackbone(nn.Module):
    """(N, 3, H, W) RGB pixels to (N, channels, rows, columns) features of stride 16.

    Args:
        layers: ``SQUEEZEDET`` or ``SQUEEZEDET_PLUS``.
        geometry: ``paper``: no padding in conv1 and the pools. ``default``: padded so that
            16 pixels make a cell; sides must be multiples of 16.
    """

    frozen = ("conv1",)

    def __init__(self, layers: Layers, geometry: Geometry) -> None:
        super().__init__()
        self.layers, self.geometry = layers, geometry
        self.normalise: nn.Module = SubtractMean()
        channels = 3
        for layer in layers:
            match layer:
                case ConvSpec(name, out, kernel):
                    self.add_module(name, nn.Conv2d(channels, out, kernel, stride=2))
                    channels = out
                case FireSpec(name, squeeze, expand1x1, expand3x3):
                    self.add_module(name, FireModule(channels, squeeze, expand1x1, expand3x3))
                    channels = expand1x1 + expand3x3
        self.channels = channels
        kernel = layers[0].kernel if isinstance(layers[0], ConvSpec) else 2
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
        default = self.geometry == "default"
        x = images
        if default:  # before the mean goes, so that the mean can be folded into conv1
            x = F.pad(x, self.padding)
        x = self.normalise(x)
        for layer in self.layers:
            match layer:
                case PoolSpec(pad=pad) if default:
                    at_start = pad == "start"
                    x = F.max_pool2d(x, 3, 2, padding=int(at_start), ceil_mode=not at_start)
                case PoolSpec():
                    x = F.max_pool2d(x, 3, 2)
                case ConvSpec(name):
                    x = F.relu(self.get_submodule(name)(x), inplace=True)
                case FireSpec(name):
                    x = self.get_submodule(name)(x)
        return x

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(columns, rows) that an image of (width, height) gives in the paper's geometry."""
        columns, rows = image_size
        for layer in self.layers:
            kernel = layer.kernel if isinstance(layer, ConvSpec) else 3
            if not isinstance(layer, FireSpec):
                columns, rows = (columns - kernel) // 2 + 1, (rows - kernel) // 2 + 1
        return columns, rows

    def fold_mean(self) -> None:
        """Let conv1 subtract the mean: conv(x - m) = conv(x) - sum(w) m; exact, see ``forward``."""
        if not isinstance(self.normalise, SubtractMean):
            return
        weight, bias = (self.get_parameter(f"conv1.{part}") for part in ("weight", "bias"))
        mean = self.normalise.mean.double().view(3)
        with torch.no_grad():
            bias.sub_((weight.double().sum((2, 3)) @ mean).to(bias.dtype))
        self.normalise = nn.Identity()


# ---- convdet_targets: Which anchor learns which object: the targets of ConvDet (section 3.3 of t


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


# ---- convdet: ConvDet: anchors, targets, loss and decoding on any backbone of stride 16.

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
    ) -> ConvDetTargets:
        """Give the objects of a batch to anchors; see ``DetectionNetwork.targets``."""
        anchors = self.anchors(self.grid(image_size)).cpu()
        if self.config.geometry == "paper":  # trap 3: labels become one pixel larger, too
            boxes = [b + b.new_tensor([0, 0, 1, 1]) for b in boxes]
        images = []
        for b, c, r in zip(boxes, classes, regions, strict=True):
            solid = (b[:, 2:] > b[:, :2]).all(dim=1)  # a box without area has no logarithm
            images.append(assign(anchors, b[solid], c[solid], r, self.assignment))
        return ConvDetTargets(*(torch.stack(field) for field in zip(*images, strict=True)))

    def loss(self, raw: Tensor, targets: ConvDetTargets) -> dict[str, Tensor]:
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
        self, gamma: Tensor, overlap: Tensor, targets: ConvDetTargets
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
