"""Pixels minus the mean colour, as the networks of that time want them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MEAN_RGB = (123.68, 116.779, 103.939)
"""ImageNet's mean colour as SqueezeDet's code has it."""


class SubtractMean(nn.Module):
    """(N, 3, H, W) RGB pixels from 0 to 255 to the same minus a colour."""

    mean: Tensor

    def __init__(self, mean_rgb: tuple[float, float, float] = MEAN_RGB) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean_rgb).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean


class MeanSubtracted(nn.Module):
    """Features of pixels minus the mean colour: a backbone for ConvDet.

    Args:
        features: takes (N, 3, H, W) pixels minus the mean; has ``channels``.
        frozen: layers of it that are not trained when they come trained.
    """

    def __init__(self, features: nn.Module, frozen: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.normalise = SubtractMean()
        self.features = features
        self.channels = features.channels
        self.frozen = tuple(f"features.{name}" for name in frozen)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.features(self.normalise(images))
        return features
