"""Tiny SSD (Wong et al., arXiv 1802.06488): ten Fire modules of uneven widths under SSD's predictors.

What the paper leaves open (default boxes, where batch normalization stands) follows the open Caffe description, which
gives the paper's 1.13 M parameters and 571.09 M multiply-accumulates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.data.voc import VOC_CLASSES
from squeezedet.errors import ModelError
from squeezedet.models.layers import (
    Affine,
    SubtractMean,
    area,
    clip,
    deltas_between,
    fold,
    fold_mean,
    move,
    paired_intersection,
    paired_iou,
    scale_and_shift,
    to_corners,
)
from squeezedet.models.network import DetectionNetwork, Labels, TensorTargets
from squeezedet.preprocess import InputRule
from squeezedet.runtime.postprocess import MAX_CANDIDATES, Selection

# ------------------------------------------------------------ SSD's parts

MEAN_RGB = (123.0, 117.0, 104.0)
"""Caffe's ImageNet mean, (104, 117, 123) in its own order BGR."""
VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""By which deltas are divided: of center x, center y, width, height."""
MATCH_IOU = 0.5
HEAD_STD = 0.01
"""Of the predictors' random kernels."""
NEGATIVES_PER_POSITIVE = 3
BACKGROUND = 0
"""Index of the background among the class logits; class id k has the index k + 1."""

# ------------------------------------------------------------- default boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMap:
    """The default boxes of one feature map; sizes in pixels of the input.

    Attributes:
        columns, rows: cells.
        step: (x, y) between the centers of neighbouring cells; the first one lies half a step inside.
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
        center = [x.view(1, -1, 1).expand(cells), y.view(-1, 1, 1).expand(cells)]
        boxes.append(torch.stack([*center, *shapes.T.unsqueeze(1).unsqueeze(1).expand(2, *cells)]))
    center_form = torch.cat([b.flatten(1) for b in boxes], dim=1).T
    return to_corners(center_form).float()


def encode(boxes: Tensor, defaults: Tensor) -> Tensor:
    """(..., 4) boxes and (..., 4) default boxes, both xyxy, to (..., 4) deltas over variances."""
    return deltas_between(defaults, boxes) / boxes.new_tensor(VARIANCES)


def decode_boxes(deltas: Tensor, defaults: Tensor) -> Tensor:
    """(..., 4) deltas and (..., 4) xyxy default boxes to (..., 4) xyxy boxes: undoes ``encode``."""
    return move(defaults, deltas * deltas.new_tensor(VARIANCES))


# ------------------------------------------------------------------- targets


@dataclass(frozen=True, slots=True)
class SSDTargets(TensorTargets):
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
    """(A, n) IoU of default boxes and objects to (A,) the object that each box learns, -1 for none (SSD, section 2.2).

    First the best pair of all, then the best of the boxes and objects that are left, until every object has one box
    that it overlaps; then every other box whose best IoU reaches the threshold learns that object.
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


def assign(defaults: Tensor, boxes: Tensor, classes: Tensor, regions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The targets of one image, in the order of the fields of ``SSDTargets``.

    (A, 4) default boxes learn (n, 4) objects, none empty, of (n,) class ids. One that would learn one of the (m, 4)
    regions if it were an object, or that lies mostly inside one, is no background. All boxes are xyxy.
    """
    owner = match(paired_iou(defaults[:, None], boxes[None]))
    positive = owner >= 0
    label = torch.full((len(defaults),), BACKGROUND, dtype=torch.int64)
    deltas = torch.zeros(len(defaults), 4)
    label[positive] = classes[owner[positive]] + 1
    deltas[positive] = encode(boxes[owner[positive]], defaults[positive])

    ignored = match(paired_iou(defaults[:, None], regions[None])) >= 0
    covered = paired_intersection(defaults[:, None], regions[None]) / area(defaults)[:, None]
    ignored |= (covered > 0.5).any(dim=1)
    return label, ignored & ~positive, deltas


# ---------------------------------------------------------------------- loss


def hard_negatives(background_loss: Tensor, positive: Tensor, candidates: Tensor) -> Tensor:
    """(N, A) bool, the backgrounds that are learned: of each image the worst candidates, three for each positive.

    ``background_loss`` is -log p(background); of equals the first ones are taken.
    """
    worst = background_loss.masked_fill(~candidates, -torch.inf).sort(dim=1, descending=True, stable=True)
    rank = worst.indices.argsort(dim=1)
    wanted = NEGATIVES_PER_POSITIVE * positive.sum(dim=1, keepdim=True)
    return candidates & (rank < wanted)


# ------------------------------------------------------------ Tiny SSD

PUBLISHED_SIZE = (300, 300)
PUBLISHED_STEPS = (8, 16, 32, 64, 100, 300)
MIN_SIDE = 65  # with less, Fire10 has no cell


@dataclass(frozen=True, slots=True)
class TinyFireSpec:
    """Widths of a Fire module, and where batch normalization stands before its ReLU."""

    squeeze: int
    expand1x1: int
    expand3x3: int
    squeeze_norm: bool = False
    expand_norm: bool = False

    @property
    def channels(self) -> int:
        """Of the output."""
        return self.expand1x1 + self.expand3x3


CONV1 = 57
FIRES = {
    "fire1": TinyFireSpec(15, 49, 53),
    "fire2": TinyFireSpec(15, 54, 52),
    "fire3": TinyFireSpec(29, 92, 94),
    "fire4": TinyFireSpec(29, 90, 83),
    "fire5": TinyFireSpec(44, 166, 161),
    "fire6": TinyFireSpec(45, 155, 146),
    "fire7": TinyFireSpec(49, 163, 171),
    "fire8": TinyFireSpec(25, 29, 54, expand_norm=True),
    "fire9": TinyFireSpec(37, 45, 56, squeeze_norm=True, expand_norm=True),
    "fire10": TinyFireSpec(38, 41, 44, squeeze_norm=True, expand_norm=True),
}
AUXILIARY = {"conv12_1": 51, "conv12_2": 46, "conv13_1": 55, "conv13_2": 85}
HEADS = ("fire4", "fire8", "fire9", "fire10", "conv12_2", "conv13_2")


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySSDConfig:
    """What a Tiny SSD is built from; a value that makes no network is a ValueError.

    Attributes:
        classes: class names; the background comes before them.
        size: (width, height) of the input.
        scales: size of the smaller square of each map's default boxes, and one more for the larger square of the last
            map, as shares of the input's shorter side.
        ratios: for each map, width / height of its further default boxes; 1 / r is added.
        auxiliary_kernel: of Conv12-1 and Conv13-1. 1 gives the paper's totals; its table prints 3, which does not.
        squeeze_relu: ReLU behind squeeze layers, as in SqueezeNet; the published backbone was trained without.
    """

    classes: tuple[str, ...] = VOC_CLASSES
    size: tuple[int, int] = PUBLISHED_SIZE
    scales: tuple[float, ...] = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
    ratios: tuple[tuple[float, ...], ...] = ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,))
    auxiliary_kernel: int = 1
    squeeze_relu: bool = True

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("classes: a detector has at least one class")
        if len(self.size) != 2 or min(self.size) < MIN_SIDE:
            raise ValueError(f"size: width and height of at least {MIN_SIDE}, not {self.size}")
        if len(self.scales) != len(HEADS) + 1 or min(self.scales) <= 0:
            raise ValueError(f"scales: {len(HEADS) + 1} shares above 0, not {self.scales}")
        if len(self.ratios) != len(HEADS) or min(r for m in self.ratios for r in (1, *m)) <= 0:
            raise ValueError(f"ratios: numbers above 0 for {len(HEADS)} maps, not {self.ratios}")
        if self.auxiliary_kernel not in (1, 3):
            raise ValueError(f"auxiliary_kernel: 1 or 3, not {self.auxiliary_kernel}")


def cells(side: int) -> tuple[int, ...]:
    """Cells of the six maps along a side of the input in pixels; pools of 3 with stride 2 round up: n become n // 2."""
    pooled = [(side - 1) // stride for stride in (8, 16, 32, 64)]
    conv12_2 = (pooled[-1] + 1) // 2
    return (*pooled, conv12_2, (conv12_2 + 1) // 2)


def feature_maps(config: TinySSDConfig) -> tuple[FeatureMap, ...]:
    """The default boxes of the six maps.

    At 300x300 the centers lie on SSD300's steps, as in the open description, although its maps are smaller; at any
    other size the cells of a map share the input evenly.
    """
    width, height = config.size
    maps = []
    for i, (columns, rows) in enumerate(zip(cells(width), cells(height), strict=True)):
        step = (width / columns, height / rows)
        if config.size == PUBLISHED_SIZE:
            step = (PUBLISHED_STEPS[i], PUBLISHED_STEPS[i])
        small, large = (scale * min(config.size) for scale in config.scales[i : i + 2])
        maps.append(
            FeatureMap(columns=columns, rows=rows, step=step, min_size=small, max_size=large, ratios=config.ratios[i])
        )
    return tuple(maps)


# -------------------------------------------------------------------- layers


class BatchNorm(nn.BatchNorm2d):
    """Takes the running statistics where a batch holds one value, as the last map may: there is no variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class TinyFire(nn.Module):
    """(N, C, H, W) to (N, expand1x1 + expand3x3, H, W)."""

    def __init__(self, in_channels: int, fire: TinyFireSpec, *, squeeze_relu: bool) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(in_channels, fire.squeeze, 1)
        self.squeeze_norm: nn.Module = BatchNorm(fire.squeeze) if fire.squeeze_norm else nn.Identity()
        self.squeeze_act = nn.ReLU() if squeeze_relu else nn.Identity()
        self.expand1x1 = nn.Conv2d(fire.squeeze, fire.expand1x1, 1)
        self.expand3x3 = nn.Conv2d(fire.squeeze, fire.expand3x3, 3, padding=1)
        self.expand_norm: nn.Module = BatchNorm(fire.channels) if fire.expand_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_act(self.squeeze_norm(self.squeeze1x1(x)))
        expanded = torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1)
        return F.relu(self.expand_norm(expanded))

    def fold(self) -> None:
        """Let the convolutions take over their normalization, in place."""
        if isinstance(self.squeeze_norm, BatchNorm):
            fold(self.squeeze1x1, *scale_and_shift(self.squeeze_norm))
            self.squeeze_norm = nn.Identity()
        if isinstance(self.expand_norm, BatchNorm):
            scale, shift = scale_and_shift(self.expand_norm)
            border = self.expand1x1.out_channels
            fold(self.expand1x1, scale[:border], shift[:border])
            fold(self.expand3x3, scale[border:], shift[border:])
            self.expand_norm = nn.Identity()


def conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int | tuple[int, int]) -> nn.Sequential:
    """A convolution without bias, batch normalization, ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, BatchNorm(out_channels), nn.ReLU())


def pool(x: Tensor) -> Tensor:
    """3x3 max pooling with stride 2, no padding, rounding up."""
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


class TinySSD(DetectionNetwork):
    """The detector: deltas of default boxes, from 3x3 predictors on six feature maps of an input of one size."""

    kind = "tiny-ssd"
    config_type = TinySSDConfig
    config: TinySSDConfig
    default_boxes: Tensor

    def __init__(self, config: TinySSDConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TinySSDConfig()
        self.input_rule = InputRule(*config.size, fixed=True)
        # As the Caffe code chooses for VOC; its 400 boxes of each class that enter NMS are one limit over all classes
        # here, as a box stands for its best class.
        candidates = min(400 * len(config.classes), MAX_CANDIDATES)
        self.selection = Selection(candidates=candidates, top_n=200, nms_iou=0.45, score=0.01)
        self.normalize: nn.Module = SubtractMean(MEAN_RGB)
        maps = feature_maps(config)
        widths = {name: fire.channels for name, fire in FIRES.items()} | AUXILIARY
        heads = [(widths[name], len(m.shapes)) for name, m in zip(HEADS, maps, strict=True)]
        outputs = len(config.classes) + 1
        self.box_heads = nn.ModuleList(nn.Conv2d(c, k * 4, 3, padding=1) for c, k in heads)
        self.class_heads = nn.ModuleList(nn.Conv2d(c, k * outputs, 3, padding=1) for c, k in heads)
        self.register_buffer("default_boxes", default_boxes(maps), persistent=False)
        self.conv1 = nn.Conv2d(3, CONV1, 3, 2)
        channels = CONV1
        for name, fire in FIRES.items():
            self.add_module(name, TinyFire(channels, fire, squeeze_relu=config.squeeze_relu))
            channels = fire.channels
        # Fire4 is normalized for its predictors only; pool5 takes it as it is.
        self.fire4_norm: nn.Module = BatchNorm(FIRES["fire4"].channels)
        columns = dict(zip(("conv12_2", "conv13_2"), cells(config.size[0])[3:5], strict=True))  # that they see
        for name, out in AUXILIARY.items():
            if name in columns:
                # In one column no stride is the same, and with one oneDNN computes the kernel's gradient in bfloat16
                # from memory that nobody has written: any number, or nan.
                self.add_module(name, conv_norm(channels, out, 3, (2, min(2, columns[name]))))
            else:
                self.add_module(name, conv_norm(channels, out, config.auxiliary_kernel, 1))
            channels = out
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Caffe's xavier, U(+-sqrt(3 / fan in)), in conv1 and fires; N(0, 0.01) in the predictors; else He's rule.

        Predictors of He's size begin with logits of 1.4 (standard deviation). Of thousands of default boxes only the
        worst backgrounds are learned in a step, so the loss is noise for more than a thousand steps.
        """
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d):
                continue
            if "_heads." in name:
                nn.init.normal_(module.weight, std=HEAD_STD)
            elif name == "conv1" or name.startswith("fire"):
                fan_in = module.weight[0].numel()
                nn.init.uniform_(module.weight, -math.sqrt(3 / fan_in), math.sqrt(3 / fan_in))
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def folded(self) -> Self:
        """See ``DetectionNetwork.folded``; only fire4's predictors keep a factor and an addend of each channel."""
        network = super().folded()
        for module in network.children():
            if isinstance(module, TinyFire):
                module.fold()
            elif isinstance(module, nn.Sequential):
                convolution, norm = module[0], module[1]
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, BatchNorm):
                    fold(convolution, *scale_and_shift(norm))
                    module[1] = nn.Identity()
        if isinstance(network.fire4_norm, BatchNorm):
            dtype = network.conv1.weight.dtype
            network.fire4_norm = Affine(*(t.to(dtype) for t in scale_and_shift(network.fire4_norm)))
        return network

    def fused(self) -> Self:
        """A folded copy of which conv1, which has no padding, also subtracts the mean."""
        network = self.folded()
        if isinstance(network.normalize, SubtractMean):
            fold_mean(network.conv1, network.normalize.mean)
            network.normalize = nn.Identity()
        return network

    def published_backbone(self) -> dict[str, str]:
        """conv1 and Fire1 to Fire8, which the published file counts from 2; a ModelError with ``squeeze_relu``."""
        if self.config.squeeze_relu:
            raise ModelError(
                "the published backbone was trained without ReLU behind squeeze layers: build the network with "
                "squeeze_relu=False"
            )
        published = {f"conv1.{part}": f"conv1.{part}" for part in ("weight", "bias")}
        for i in range(1, 9):
            fire = self.get_submodule(f"fire{i}").named_parameters()
            published |= {f"fire{i + 1}.{name}": f"fire{i}.{name}" for name, _ in fire if "_norm" not in name}
        return published

    def features(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB pixels minus the mean to the six feature maps."""
        layer = self.get_submodule
        x = pool(F.relu(self.conv1(x)))
        x = pool(layer("fire2")(layer("fire1")(x)))
        fire4 = layer("fire4")(layer("fire3")(x))
        x = pool(fire4)
        for name in ("fire5", "fire6", "fire7", "fire8"):
            x = layer(name)(x)
        fire8 = x
        fire9 = layer("fire9")(pool(fire8))
        fire10 = layer("fire10")(pool(fire9))
        conv12_2 = layer("conv12_2")(layer("conv12_1")(fire10))
        conv13_2 = layer("conv13_2")(layer("conv13_1")(conv12_2))
        return [self.fire4_norm(fire4), fire8, fire9, fire10, conv12_2, conv13_2]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) RGB pixels from 0 to 255 of the network's size to (N, A, 4) deltas and (N, A, C + 1) class
        logits.
        """
        rule = self.input_rule
        if tuple(images.shape[-2:]) != (rule.height, rule.width):
            raise ValueError(
                f"this network takes {rule.width}x{rule.height} pixels, not {images.shape[-1]}x{images.shape[-2]}"
            )
        maps = self.features(self.normalize(images.to(self.default_boxes.dtype)))
        outputs = len(self.config.classes) + 1
        deltas = [_by_box(head(m), 4) for head, m in zip(self.box_heads, maps, strict=True)]
        logits = [_by_box(head(m), outputs) for head, m in zip(self.class_heads, maps, strict=True)]
        return torch.cat(deltas, dim=1), torch.cat(logits, dim=1)

    def targets(self, labels: Labels) -> SSDTargets:
        rule = self.input_rule
        if tuple(labels.image_size) != (rule.width, rule.height):
            width, height = labels.image_size
            raise ValueError(f"this network takes {rule.width}x{rule.height}, not {width}x{height}")
        defaults = self.default_boxes.cpu().float()
        labels = labels.without_empty()
        objects = zip(labels.boxes, labels.classes, labels.regions, strict=True)
        images = [assign(defaults, *image) for image in objects]
        return SSDTargets(*(torch.stack(field) for field in zip(*images, strict=True)))

    def loss(self, raw: tuple[Tensor, Tensor], targets: SSDTargets) -> dict[str, Tensor]:
        """Section 2.2 of SSD, equation 1: smooth L1 and softmax, over the matches of the whole batch."""
        deltas, logits = (part.float() for part in raw)
        positive = targets.label != BACKGROUND
        matches = self.sum_over_processes(positive.sum()).clamp(min=1)
        box_sum = F.smooth_l1_loss(deltas[positive], targets.deltas[positive], reduction="sum")
        entropy = F.cross_entropy(logits.flatten(0, 1), targets.label.flatten(), reduction="none")
        entropy = entropy.view_as(targets.label)
        mined = hard_negatives(entropy.detach(), positive, ~positive & ~targets.ignored)
        return {"class": entropy[positive | mined].sum() / matches, "box": box_sum / matches}

    def decode(self, raw: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(N, A, 4) xyxy boxes, (N, A) scores: the probability of the best class that is not background, (N, A) class
        ids.
        """
        deltas, logits = raw
        rule = self.input_rule
        boxes = clip(decode_boxes(deltas, self.default_boxes), (rule.width, rule.height))
        score, class_id = logits.softmax(dim=-1)[..., 1:].max(dim=-1)
        return boxes, score, class_id


def _by_box(predicted: Tensor, values: int) -> Tensor:
    """(N, K * values, H, W) to (N, H * W * K, values), in the order of the default boxes."""
    return predicted.permute(0, 2, 3, 1).reshape(len(predicted), -1, values)
