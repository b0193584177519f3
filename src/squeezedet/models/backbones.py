"""Backbones of stride 16 beside SqueezeDet's: VGG16's convolutions (arXiv 1409.1556, table 1, D) as Faster R-CNN uses
them, and ResNet50 (arXiv 1512.03385) up to conv4_x. Names of layers are those of the published Caffe models.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.models.layers import SubtractMean, fold, kaiming_normal

# ------------------------------------------------------------ VGG16, conv1_1 to conv5_3

# (channels, convolutions) of each block; a pool stands between two blocks.
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG16(nn.Module):
    """3x3 convolutions with ReLU; 2x2 max pools that keep a last odd row or column. ``frozen`` as of ``ResNet50``."""

    channels = 512
    stride = 16
    frozen = ("conv1_1", "conv1_2", "conv2_1", "conv2_2")

    def __init__(self) -> None:
        super().__init__()
        before = 3
        for block, (channels, convolutions) in enumerate(BLOCKS, 1):
            for i in range(1, convolutions + 1):
                self.add_module(f"conv{block}_{i}", nn.Conv2d(before, channels, 3, padding=1))
                before = channels
        self.reset_parameters()

    def reset_parameters(self) -> None:
        kaiming_normal(self, "conv1_1")

    @staticmethod
    def cells(pixels: int) -> int:
        """Cells of the feature map along a side of the image."""
        return (pixels + 15) // 16

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) pixels less their mean to (N, 512, ceil(H / 16), ceil(W / 16))."""
        x = images
        for block, (_, convolutions) in enumerate(BLOCKS, 1):
            if block > 1:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            for i in range(1, convolutions + 1):
                x = F.relu(self.get_submodule(f"conv{block}_{i}")(x), inplace=True)
        return x


# ------------------------------------------------------------ ResNet50 up to conv4_x

EPSILON = 1e-5
# Stage -> (inner channels, channels, blocks, stride of the first block).
STAGES = {2: (64, 256, 3, 1), 3: (128, 512, 4, 2), 4: (256, 1024, 6, 2)}


class FrozenBatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta; the statistics never change."""

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift()
        return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        scale = self.weight * (self.variance + EPSILON).rsqrt()
        return scale, self.bias - self.mean * scale


class ConvNorm(nn.Sequential):
    """A convolution without bias, and its batch norm."""

    def __init__(self, before: int, channels: int, kernel: int, stride: int = 1) -> None:
        convolution = nn.Conv2d(before, channels, kernel, stride, padding=kernel // 2, bias=False)
        super().__init__()
        self.conv = convolution
        self.norm: nn.Module = FrozenBatchNorm(channels)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut; the ReLU comes after the addition."""

    def __init__(self, before: int, inner: int, channels: int, stride: int) -> None:
        super().__init__()
        self.branch2a = ConvNorm(before, inner, 1, stride)
        self.branch2b = ConvNorm(inner, inner, 3)
        self.branch2c = ConvNorm(inner, channels, 1)
        self.branch1 = ConvNorm(before, channels, 1, stride) if before != channels else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.branch1 is None else self.branch1(x)
        x = F.relu(self.branch2a(x), inplace=True)
        x = F.relu(self.branch2b(x), inplace=True)
        return F.relu(self.branch2c(x) + shortcut, inplace=True)


class ResNet50(nn.Module):
    """conv1, pool1, conv2_x, conv3_x, conv4_x; ``frozen`` is what SqueezeDet's code does not train."""

    channels = 1024
    frozen = ("conv1", "bn_conv1", "res2", "res3")

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2)
        self.bn_conv1: nn.Module = FrozenBatchNorm(64)
        before = 64
        for stage, (inner, channels, blocks, stride) in STAGES.items():
            members = nn.Sequential()
            for i in range(blocks):
                first = stride if i == 0 else 1
                members.add_module("abcdef"[i], Bottleneck(before, inner, channels, first))
                before = channels
            self.add_module(f"res{stage}", members)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Every block starts as its shortcut alone: batch norm that does not measure keeps no scale in check."""
        kaiming_normal(self, "conv1")
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.branch2c.get_parameter("norm.weight"))

    def fold(self) -> None:
        """Let the convolutions take over their normalization, in place."""
        for module in list(self.modules()):
            if isinstance(module, ConvNorm) and isinstance(module.norm, FrozenBatchNorm):
                fold(module.conv, *module.norm.scale_and_shift())
                module.norm = nn.Identity()
        if isinstance(self.bn_conv1, FrozenBatchNorm):
            fold(self.conv1, *self.bn_conv1.scale_and_shift())
            self.bn_conv1 = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) pixels less their mean to (N, 1024, ceil(H / 16), ceil(W / 16))."""
        x = F.pad(images, (*same(images.shape[-1]), *same(images.shape[-2])))
        x = F.relu(self.bn_conv1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, 2)
        for stage in STAGES:
            x = self.get_submodule(f"res{stage}")(x)
        return x


def same(side: int) -> tuple[int, int]:
    """TensorFlow's SAME padding, before and after, of a 7x7 convolution with stride 2."""
    return (3, 3) if side % 2 else (2, 3)


# ------------------------------------------------------------ under ConvDet

BACKBONES: dict[str, type[VGG16 | ResNet50]] = {"vgg16": VGG16, "resnet50": ResNet50}


class MeanSubtracted(nn.Module):
    """Features of pixels minus the mean color; ``frozen`` are layers that are not trained when they come trained."""

    def __init__(self, features: VGG16 | ResNet50) -> None:
        super().__init__()
        self.normalize = SubtractMean()
        self.features = features
        self.channels = features.channels
        self.frozen = tuple(f"features.{name}" for name in features.frozen)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.features(self.normalize(images))
        return features
