"""Batch normalisation as part of the convolution before it.

With the statistics of training, normalisation is a factor and an addend for each channel, which
the kernel and the bias of a convolution can take: the same answers from fewer layers.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a normalisation with fixed statistics multiplies by and adds; (channels,) float64."""
    mean = cast(Tensor, norm.running_mean).double()
    variance = cast(Tensor, norm.running_var).double()
    scale = norm.weight.detach().double() * (variance + norm.eps).rsqrt()
    return scale, norm.bias.detach().double() - mean * scale


@torch.no_grad()
def fold(convolution: nn.Conv2d, scale: Tensor, shift: Tensor) -> None:
    """Let a convolution multiply its output by ``scale`` and add ``shift``, in place.

    Args:
        convolution: gets a bias if it has none.
        scale: (channels of the output,).
        shift: the same.
    """
    weight = convolution.weight
    bias = shift if convolution.bias is None else convolution.bias.double() * scale + shift
    weight.copy_(weight.double() * scale.view(-1, 1, 1, 1))
    convolution.bias = nn.Parameter(bias.to(weight.dtype))


class Affine(nn.Module):
    """x * scale + shift: a normalisation that no convolution can take.

    Behind it stands one that pads with zeros, which the addend would have to become, too.
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale.view(-1, 1, 1))
        self.shift = nn.Parameter(shift.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x * self.scale + self.shift
