"""The random weights that a network of convolutions and ReLU learns from."""

from __future__ import annotations

import torch
from torch import nn

PIXEL_SPREAD = 64.0
"""Standard deviation of pixels from 0 to 255, roughly: the first layer sees no unit noise."""


def kaiming_normal(network: nn.Module, first: str) -> None:
    """Kaiming's normal distribution (arXiv 1502.01852) for the kernels, zero for their biases.

    Args:
        network: changed in place; what is no convolution stays.
        first: the convolution that sees pixels; it also brings them to a spread near one.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        network.get_parameter(f"{first}.weight").div_(PIXEL_SPREAD)
