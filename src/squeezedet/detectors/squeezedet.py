"""SqueezeDet, top to bottom: layers, anchors, targets, loss, decoding.

Wu, Wan, Iandola, Jin, Keutzer: "SqueezeDet: Unified, Small, Low Power Fully
Convolutional Neural Networks for Real-Time Object Detection for Autonomous
Driving", arXiv 1612.01051. The backbone is SqueezeNet v1.1; fire10, fire11 and
the ConvDet layer are new.

Two geometries live here, and nothing else depends on which one is chosen:

``paper``    what the paper measured and its code computes: 1242x375, no padding
             in conv1 and the pools, anchor centres at k*W/(n+1), +1 pixel when
             corners become centres, the code's loss constants.
``default``  any size that is a multiple of 16, anchors of cell i centred on
             (i + 0.5) * 16 (the cell looks at pixel 16 i + 7, half a pixel
             beside), no +1, plain cross-entropy, several anchors per object,
             regions without loss.

docs/traps.md lists the differences. Boxes are xyxy in network-input pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.detectors.geometry import paired_giou, paired_iou
from squeezedet.runtime.preprocess import STRIDE

# ------------------------------------------------------------------ layers


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution with bias and ReLU."""

    name: str
    channels: int
    kernel: int
    stride: int


@dataclass(frozen=True, slots=True)
class Pool:
    """3x3 max pooling with stride 2; ``pad`` says which side the default geometry pads."""

    name: str
    pad: Literal["start", "end"] = "end"


@dataclass(frozen=True, slots=True)
class Fire:
    """squeeze 1x1, then expand 1x1 and expand 3x3 side by side (SqueezeNet, section 3.2)."""

    name: str
    squeeze: int
    expand1x1: int
    expand3x3: int


# Padding conv1, pool1 and pool3 at the end and pool5 at the start puts the centre
# of the receptive field of cell i on pixel 16 i + 7, the middle of its stride cell.
LAYERS: tuple[Conv | Pool | Fire, ...] = (
    Conv("conv1", 64, kernel=3, stride=2),
    Pool("pool1"),
    Fire("fire2", 16, 64, 64),
    Fire("fire3", 16, 64, 64),
    Pool("pool3"),
    Fire("fire4", 32, 128, 128),
    Fire("fire5", 32, 128, 128),
    Pool("pool5", pad="start"),
    Fire("fire6", 48, 192, 192),
    Fire("fire7", 48, 192, 192),
    Fire("fire8", 64, 256, 256),
    Fire("fire9", 64, 256, 256),
    Fire("fire10", 96, 384, 384),
    Fire("fire11", 96, 384, 384),
)

# Set A of the released code: (width, height) in network-input pixels.
ANCHORS_A: tuple[tuple[int, int], ...] = (
    (36, 37),
    (366, 174),
    (115, 59),
    (162, 87),
    (38, 90),
    (258, 173),
    (224, 108),
    (78, 170),
    (72, 43),
)
MEAN_RGB = (123.68, 116.779, 103.939)
PAPER_SIZE = (1242, 375)
EXP_THRESHOLD = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SqueezeDetConfig:
    """What a SqueezeDet is built from.

    Attributes:
        classes: class names; the channel order of the class scores.
        anchors: (width, height) of each anchor, in network-input pixels.
        geometry: ``default`` or ``paper``, see the module's docstring.
        dropout: probability of dropping an input of ConvDet.
        loss_class, loss_box, loss_object, loss_background: weights of the terms
            (1, 5, 75, 100 in section 3.3 and the code).
        loss_iou: weight of the extra term 1 - GIoU of the decoded box.
        loss_focal: weight of the quality focal loss (arXiv 2006.04388, eq. 6) of the confidence,
            which counts each background anchor by how wrong it is; it takes the place of
            ``loss_object`` and ``loss_background``, which are then without effect. 0 for the
            paper's squared errors.
        anchors_per_object: how many anchors may learn one object.
        match_iou: the best anchor always learns its object; a further one does when its IoU
            is above this share of the best one's.
        ignore_iou: an anchor above this IoU with an object it does not learn is no background.
    """

    classes: tuple[str, ...] = ("car", "pedestrian", "cyclist")
    anchors: tuple[tuple[int, int], ...] = ANCHORS_A
    geometry: Literal["default", "paper"] = "default"
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


# One anchor an object, every other anchor background, dropout 0.5: the paper and its code.
PAPER = SqueezeDetConfig(
    geometry="paper", dropout=0.5, loss_iou=0.0, anchors_per_object=1, ignore_iou=1.0
)


class FireModule(nn.Module):
    """(N, C, H, W) to (N, expand1x1 + expand3x3, H, W)."""

    def __init__(self, in_channels: int, fire: Fire) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(in_channels, fire.squeeze, 1)
        self.expand1x1 = nn.Conv2d(fire.squeeze, fire.expand1x1, 1)
        self.expand3x3 = nn.Conv2d(fire.squeeze, fire.expand3x3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze1x1(x), inplace=True)
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1), inplace=True)


class SubtractMean(nn.Module):
    """Pixels minus the mean colour; export folds it into conv1 and puts nothing in its place."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean


class SqueezeDet(nn.Module):
    """The detector: ``forward``, ``loss`` and ``decode``."""

    shapes: Tensor

    def __init__(self, config: SqueezeDetConfig | None = None) -> None:
        super().__init__()
        self.config = config or SqueezeDetConfig()
        self.normalise: nn.Module = SubtractMean()
        channels = 3
        for layer in LAYERS:
            match layer:
                case Conv(name, out, kernel, stride):
                    self.add_module(name, nn.Conv2d(channels, out, kernel, stride))
                    channels = out
                case Fire(name):
                    self.add_module(name, FireModule(channels, layer))
                    channels = layer.expand1x1 + layer.expand3x3
        outputs = len(self.config.anchors) * (len(self.config.classes) + 1 + 4)
        self.dropout = nn.Dropout(self.config.dropout)
        self.convdet = nn.Conv2d(channels, outputs, 3, padding=1)
        shapes = torch.tensor(self.config.anchors, dtype=torch.float32)
        self.register_buffer("shapes", shapes, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal at 2 sigma: 0.001 for conv1, 0.01 for fires, 0.0001 for ConvDet."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
                continue
            layer = name.split(".")[0]
            sigma = {"conv1": 0.001, "convdet": 0.0001}.get(layer, 0.01)
            nn.init.trunc_normal_(parameter, std=sigma, a=-2 * sigma, b=2 * sigma)

    # -------------------------------------------------------------- network

    def forward(self, images: Tensor) -> Tensor:
        """Run the network.

        Args:
            images: (N, 3, H, W) RGB pixels from 0 to 255, any dtype.

        Returns:
            (N, K * (C + 5), H / 16, W / 16): for each of K anchors C class logits,
            then K confidence logits, then K x 4 deltas (section 2 of the code's layout).
        """
        default = self.config.geometry == "default"
        x = images.to(self.shapes.dtype)
        if default:
            if images.shape[-1] % STRIDE or images.shape[-2] % STRIDE:
                raise ValueError(f"sides must be multiples of {STRIDE}: {tuple(images.shape)}")
            x = F.pad(x, (0, 1, 0, 1))
        elif tuple(images.shape[-2:]) != PAPER_SIZE[::-1]:
            raise ValueError(f"the paper's geometry is 1242x375, not {tuple(images.shape)}")
        x = self.normalise(x)
        for layer in LAYERS:
            match layer:
                case Pool(pad=pad) if default:
                    start = pad == "start"
                    x = F.max_pool2d(x, 3, 2, padding=int(start), ceil_mode=not start)
                case Pool():
                    x = F.max_pool2d(x, 3, 2)
                case Conv(name):
                    x = F.relu(self.get_submodule(name)(x), inplace=True)
                case Fire(name):
                    x = self.get_submodule(name)(x)
        raw: Tensor = self.convdet(self.dropout(x))
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

    # -------------------------------------------------------------- anchors

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(columns, rows) of the feature map for an input of (width, height)."""
        if self.config.geometry == "default":
            return image_size[0] // STRIDE, image_size[1] // STRIDE
        columns, rows = image_size
        for layer in LAYERS:
            if isinstance(layer, Pool | Conv):  # 3x3, stride 2, no padding
                columns, rows = (columns - 3) // 2 + 1, (rows - 3) // 2 + 1
        return columns, rows

    def image_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the input that gives a (columns, rows) grid."""
        if self.config.geometry == "paper":
            return PAPER_SIZE
        return grid[0] * STRIDE, grid[1] * STRIDE

    def anchors(self, grid: tuple[int, int]) -> Tensor:
        """(columns, rows) of the feature map to (A, 4) anchors: centre, width, height."""
        columns, rows = grid
        device = self.shapes.device
        if self.config.geometry == "paper":
            width, height = PAPER_SIZE
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
        grid: tuple[int, int],
    ) -> Targets:
        """Give the objects of a batch to anchors.

        Args:
            boxes: for each image (n, 4) xyxy of its objects.
            classes: for each image (n,) class ids.
            regions: for each image (m, 4) xyxy of areas without confidence loss.
            grid: (columns, rows) of the feature map.
        """
        anchors = self.anchors(grid).cpu()
        if self.config.geometry == "paper":  # trap 3: labels become one pixel larger, too
            boxes = [b + b.new_tensor([0, 0, 1, 1]) for b in boxes]
        images = []
        for b, c, r in zip(boxes, classes, regions, strict=True):
            solid = (b[:, 2:] > b[:, :2]).all(dim=1)  # a box without area has no logarithm
            images.append(assign(anchors, b[solid], c[solid], r, self.config))
        return Targets(*(torch.stack(field) for field in zip(*images, strict=True)))

    def loss(self, raw: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The terms of section 3.3, each with its weight; their sum is what is minimised."""
        config, paper = self.config, self.config.geometry == "paper"
        logits, confidence, deltas = (part.float() for part in self.split(raw))
        positive = targets.positive
        count = positive.sum()
        objects = count.clamp(min=1)
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
        count = positive.sum()
        object_sum = (gamma[positive] - overlap).square().sum()
        background = ~positive & ~targets.ignored
        background_sum = gamma[background].square().sum()
        if config.geometry == "paper":  # N over the batch, A per image, once more 1 / batch (trap 8)
            batch = len(gamma)
            object_sum = object_sum / batch
            backgrounds = (positive.shape[1] - count).clamp(min=1) * batch
        else:
            backgrounds = background.sum().clamp(min=1)
        return {
            "object": config.loss_object * object_sum / count.clamp(min=1),
            "background": config.loss_background * background_sum / backgrounds,
        }


# ---------------------------------------------------------------- arithmetic


def safe_exp(x: Tensor) -> Tensor:
    """exp(x) up to 1, its tangent e * x beyond: no overflow, and a gradient everywhere."""
    slope = torch.e * x
    return torch.where(x > EXP_THRESHOLD, slope, x.clamp(max=EXP_THRESHOLD).exp())


def quality_focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """|wanted - sigmoid|^2 times the binary cross-entropy, element by element (beta = 2)."""
    error = (wanted - logits.sigmoid()).square()
    return error * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


# ------------------------------------------------------------------- targets


@dataclass(frozen=True, slots=True)
class Targets:
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

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on another device."""
        names = ("positive", "ignored", "class_id", "deltas", "boxes")
        return Targets(*(getattr(self, name).to(device, non_blocking=True) for name in names))


def assign(
    anchors: Tensor, boxes: Tensor, classes: Tensor, regions: Tensor, config: SqueezeDetConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The targets of one image, in the order of the fields of ``Targets``.

    Args:
        anchors: (A, 4) centre, width, height.
        boxes: (n, 4) xyxy of the objects; none is empty.
        classes: (n,) class ids.
        regions: (m, 4) xyxy of areas without confidence loss.
        config: how many anchors an object gets, and which are left in peace.
    """
    corners = torch.cat(
        [anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], 1
    )
    overlaps = paired_iou(boxes[:, None], corners[None])  # (n, A)
    centre_form = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
    owner = _owners(anchors, centre_form, overlaps, config)
    positive = owner >= 0
    mine, their = owner[positive], anchors[positive]
    class_id = torch.zeros(len(anchors), dtype=torch.int64)
    deltas, target_boxes = torch.zeros(len(anchors), 4), torch.zeros(len(anchors), 4)
    class_id[positive] = classes[mine]
    target_boxes[positive] = boxes[mine]
    shift = (centre_form[mine, :2] - their[:, :2]) / their[:, 2:]
    deltas[positive] = torch.cat([shift, (centre_form[mine, 2:] / their[:, 2:]).log()], dim=1)

    ignored = (overlaps > config.ignore_iou).any(dim=0) | _in_regions(corners, regions, config)
    return positive, ignored & ~positive, class_id, deltas, target_boxes


def _owners(
    anchors: Tensor, centre_form: Tensor, overlaps: Tensor, config: SqueezeDetConfig
) -> Tensor:
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
    more = min(config.anchors_per_object - 1, len(anchors))
    if more and len(overlaps):
        best_object = overlaps.argmax(dim=0)
        for i, overlap in enumerate(overlaps):
            enough = overlap > config.match_iou * overlap.max()
            candidates = (owner < 0) & (best_object == i) & enough
            rank = torch.where(candidates, overlap, -1).topk(more)
            owner[rank.indices[rank.values > 0]] = i
    return owner


def _in_regions(corners: Tensor, regions: Tensor, config: SqueezeDetConfig) -> Tensor:
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
    return ((covered > 0.5) | (overlaps >= config.match_iou * best)).any(dim=1)
