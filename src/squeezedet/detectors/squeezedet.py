"""SqueezeDet and SqueezeDet+: the layers before ConvDet.

Wu, Wan, Iandola, Jin, Keutzer: "SqueezeDet: Unified, Small, Low Power Fully
Convolutional Neural Networks for Real-Time Object Detection for Autonomous
Driving", arXiv 1612.01051. SqueezeDet begins as SqueezeNet v1.1, SqueezeDet+ as
SqueezeNet v1.0 with squeeze ratio 0.75; fire10 and fire11 are new in both. What
follows, anchors, targets, loss and decoding, is in ``convdet.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.detectors.normalise import SubtractMean
from squeezedet.detectors.squeezenet import FireModule

Geometry = Literal["default", "paper"]


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution with bias and ReLU, stride 2."""

    name: str
    channels: int
    kernel: int


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


Layers = tuple[Conv | Pool | Fire, ...]

# Padding conv1, the first and the second pool at the end and the last one at the start puts
# the centre of the receptive field of cell i on pixel 16 i + 7, the middle of its stride cell.
SQUEEZEDET: Layers = (
    Conv("conv1", 64, kernel=3),
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

SQUEEZEDET_PLUS: Layers = (
    Conv("conv1", 96, kernel=7),
    Pool("pool1"),
    Fire("fire2", 96, 64, 64),
    Fire("fire3", 96, 64, 64),
    Fire("fire4", 192, 128, 128),
    Pool("pool4"),
    Fire("fire5", 192, 128, 128),
    Fire("fire6", 288, 192, 192),
    Fire("fire7", 288, 192, 192),
    Fire("fire8", 384, 256, 256),
    Pool("pool8", pad="start"),
    Fire("fire9", 384, 256, 256),
    Fire("fire10", 384, 256, 256),
    Fire("fire11", 384, 256, 256),
)


def widths(layers: Layers) -> tuple[int, ...]:
    """The channels of each convolution, in order; a fire module has three (squeeze, 1x1, 3x3)."""
    found: list[int] = []
    for layer in layers:
        match layer:
            case Conv(channels=channels):
                found.append(channels)
            case Fire(_, squeeze, expand1x1, expand3x3):
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
        if isinstance(layer, Conv)
        else replace(layer, squeeze=next(left), expand1x1=next(left), expand3x3=next(left))
        if isinstance(layer, Fire)
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
                case Conv(name, out, kernel):
                    self.add_module(name, nn.Conv2d(channels, out, kernel, stride=2))
                    channels = out
                case Fire(name, squeeze, expand1x1, expand3x3):
                    self.add_module(name, FireModule(channels, squeeze, expand1x1, expand3x3))
                    channels = expand1x1 + expand3x3
        self.channels = channels
        kernel = layers[0].kernel if isinstance(layers[0], Conv) else 2
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
                case Pool(pad=pad) if default:
                    at_start = pad == "start"
                    x = F.max_pool2d(x, 3, 2, padding=int(at_start), ceil_mode=not at_start)
                case Pool():
                    x = F.max_pool2d(x, 3, 2)
                case Conv(name):
                    x = F.relu(self.get_submodule(name)(x), inplace=True)
                case Fire(name):
                    x = self.get_submodule(name)(x)
        return x

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(columns, rows) that an image of (width, height) gives in the paper's geometry."""
        columns, rows = image_size
        for layer in self.layers:
            kernel = layer.kernel if isinstance(layer, Conv) else 3
            if not isinstance(layer, Fire):
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
