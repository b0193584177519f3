"""What the networks share: geometry of boxes on tensors (in NumPy: ``squeezedet.boxes``), and small layers."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

# ------------------------------------------------------------ geometry of xyxy boxes


def area(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy boxes to (...)."""
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def paired_intersection(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) and (..., 4) xyxy boxes to (...) the area that each pair shares."""
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    return sides.clamp(min=0).prod(-1)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) and (..., 4) xyxy boxes to (...) IoU of each pair."""
    shared = paired_intersection(a, b)
    return shared / (area(a) + area(b) - shared).clamp(min=1e-9)


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) and (..., 4) xyxy boxes to (...) generalized IoU of each pair (arXiv 1902.09630)."""
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    overlap = paired_iou(a, b)
    union = (area(a) + area(b)) / (1 + overlap)
    return overlap - (hull - union) / hull.clamp(min=1e-9)


def to_center(xyxy: Tensor) -> Tensor:
    """(..., 4) xyxy to (..., 4) center x, center y, width, height."""
    low, high = xyxy[..., :2], xyxy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def to_corners(center: Tensor) -> Tensor:
    """(..., 4) center x, center y, width, height to (..., 4) xyxy."""
    middle, half = center[..., :2], center[..., 2:] / 2
    return torch.cat([middle - half, middle + half], dim=-1)


MAX_LOG_SIZE = math.log(1000 / 16)  # a side grows 62.5 times at most


def move(boxes: Tensor, deltas: Tensor) -> Tensor:
    """(..., 4) xyxy boxes and (..., 4) deltas to (..., 4) xyxy boxes (eq. 2, solved for x)."""
    center = to_center(boxes)
    size = center[..., 2:] * deltas[..., 2:].clamp(max=MAX_LOG_SIZE).exp()
    return to_corners(torch.cat([center[..., :2] + deltas[..., :2] * center[..., 2:], size], -1))


def deltas_between(boxes: Tensor, wanted: Tensor) -> Tensor:
    """(..., 4) xyxy boxes and (..., 4) xyxy objects to the (..., 4) deltas (eq. 2)."""
    mine, theirs = to_center(boxes), to_center(wanted)
    shift = (theirs[..., :2] - mine[..., :2]) / mine[..., 2:]
    return torch.cat([shift, (theirs[..., 2:] / mine[..., 2:]).log()], dim=-1)


def clip(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """(..., 4) xyxy boxes cut to the image of (width, height)."""
    x, y = boxes[..., 0::2].clamp(0, image_size[0]), boxes[..., 1::2].clamp(0, image_size[1])
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


# ------------------------------------------------------------ initial weights

PIXEL_SPREAD = 64.0
"""Standard deviation of pixels from 0 to 255, roughly: the first layer sees no unit noise."""


def kaiming_normal(network: nn.Module, first: str) -> None:
    """Kaiming's normal distribution (arXiv 1502.01852) for all kernels, zero for their biases.

    The convolution ``first``, which sees pixels, also brings them to a spread near one.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        network.get_parameter(f"{first}.weight").div_(PIXEL_SPREAD)


# ------------------------------------------------------------ pixels minus a mean

MEAN_RGB = (123.68, 116.779, 103.939)
"""ImageNet's mean color as SqueezeDet's code has it."""


class SubtractMean(nn.Module):
    """(N, 3, H, W) RGB pixels from 0 to 255 to the same minus a color."""

    mean: Tensor

    def __init__(self, mean_rgb: tuple[float, float, float] = MEAN_RGB) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean_rgb).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean


# ------------------------------------------------------------ folding into convolutions


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a normalization with fixed statistics multiplies by and adds; (channels,) float64."""
    mean = cast(Tensor, norm.running_mean).double()
    variance = cast(Tensor, norm.running_var).double()
    scale = norm.weight.detach().double() * (variance + norm.eps).rsqrt()
    return scale, norm.bias.detach().double() - mean * scale


@torch.no_grad()
def fold(convolution: nn.Conv2d, scale: Tensor, shift: Tensor) -> None:
    """Let a convolution multiply its (channels,) outputs by ``scale`` and add ``shift``, in place; it gets a bias."""
    weight = convolution.weight
    bias = shift if convolution.bias is None else convolution.bias.double() * scale + shift
    weight.copy_(weight.double() * scale.view(-1, 1, 1, 1))
    convolution.bias = nn.Parameter(bias.to(weight.dtype))


@torch.no_grad()
def fold_mean(convolution: nn.Module, mean: Tensor) -> None:
    """Let a convolution with a bias and without padding subtract a mean: conv(x - m) = conv(x) - sum(w) m."""
    weight, bias = (convolution.get_parameter(part) for part in ("weight", "bias"))
    bias.sub_((weight.double().sum((2, 3)) @ mean.double().view(-1)).to(bias.dtype))


class Affine(nn.Module):
    """x * scale + shift: a normalization that no convolution can take, as one that pads with zeros follows."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale.view(-1, 1, 1))
        self.shift = nn.Parameter(shift.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


# ------------------------------------------------------------ non-maximum suppression in a graph


def nms(boxes: Tensor, score: Tensor, iou_threshold: float, count: int) -> Tensor:
    """(count,) indices of the first boxes that greedy non-maximum suppression keeps.

    Of (B, 4) xyxy boxes by descending (B,) score at least ``count`` must be left when of two with an IoU above the
    threshold the lower one is dropped.
    """
    if torch.onnx.is_in_onnx_export():
        limit, threshold = torch.tensor([count]), torch.tensor([iou_threshold])
        kept = torch.onnx.ops.symbolic(
            "NonMaxSuppression",
            (boxes[None], score[None, None], limit, threshold),
            dtype=torch.int64,
            shape=(count, 3),
            version=18,
        )
        return kept[:, 2]
    alive, picks = torch.ones_like(score, dtype=torch.bool), []
    for _ in range(count):
        pick = alive.byte().argmax(0, keepdim=True)  # the first that is alive
        alive = alive & (paired_iou(boxes, boxes[pick]) <= iou_threshold)
        alive = alive.index_fill(0, pick, False)
        picks.append(pick)
    return torch.cat(picks)


def spare_boxes(count: int, device: torch.device) -> Tensor:
    """(count, 4) unit boxes to the left of the image; none touches another."""
    x1 = -2.0 * torch.arange(1, count + 1, device=device)
    zero = torch.zeros_like(x1)
    return torch.stack([x1, zero, x1 + 1, zero + 1], dim=1)
