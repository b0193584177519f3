"""The layers of darknet that its detectors share, and loading them from ``.weights`` files."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import starmap
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from squeezedet.pretrained import darknet
from squeezedet.pretrained.darknet import Header, Layer

LEAK = 0.1


class Convolution(nn.Module):
    """A "same" convolution with leaky ReLU 0.1, with batch norm or with a bias."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, stride: int = 1, *, batch_norm: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, channels, kernel, stride, padding=kernel // 2, bias=not batch_norm
        )
        self.norm = nn.BatchNorm2d(channels) if batch_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, channels, H / stride, W / stride)."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.leaky_relu(x, LEAK)


class LocallyConnected2d(nn.Module):
    """A "same" convolution of stride 1 whose every location has weights of its own.

    Attributes:
        weight: (rows * columns, channels, in_channels * kernel * kernel), as darknet stores it.
        bias: (channels, rows * columns).
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.in_channels, self.channels, self.kernel, self.grid = in_channels, channels, kernel, grid
        locations = grid[0] * grid[1]
        self.weight = nn.Parameter(torch.empty(locations, channels, in_channels * kernel * kernel))
        self.bias = nn.Parameter(torch.empty(channels, locations))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, rows, columns) to (N, channels, rows, columns)."""
        columns, rows = self.grid
        x = F.pad(x, [self.kernel // 2] * 4)
        shifts = [
            x[:, :, i : i + rows, j : j + columns]
            for i in range(self.kernel)
            for j in range(self.kernel)
        ]
        patches = torch.stack(shifts, dim=2).flatten(3).flatten(1, 2)  # (N, in * k * k, locations)
        out = torch.einsum("nkl,lck->ncl", patches, self.weight) + self.bias
        return out.unflatten(2, (rows, columns))


def initialise(network: nn.Module, output: nn.Conv2d | nn.Linear) -> None:
    """He's initialisation (arXiv 1502.01852) for leaky ReLU, N(0, 0.01) for the output layer.

    The output starts near zero: a box near its anchor, or of no size, and no class preferred.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=LEAK)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, LocallyConnected2d):  # the fan-in is that of one location
            std = nn.init.calculate_gain("leaky_relu", LEAK) / module.weight.shape[2] ** 0.5
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
    nn.init.normal_(output.weight, std=0.01)


# ------------------------------------------------------------ weights files


def load_weights(network: nn.Module, path: Path) -> Header:
    """Put a darknet ``.weights`` file into a network; returns the file's header.

    Raises:
        ModelError: the file is not one of exactly this network.
    """
    layers, tensors = _layers(network)
    header, arrays = darknet.read(path, layers)
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(arrays.pop(name)))
    return header


def save_weights(network: nn.Module, path: Path, header: Header | None = None) -> None:
    """Write a network as a darknet ``.weights`` file.

    Raises:
        SqueezeDetError: the file cannot be written.
    """
    layers, tensors = _layers(network)
    darknet.write(path, layers, _Arrays(tensors), header)


def weight_layers(network: nn.Module) -> tuple[Layer, ...]:
    """The layers of a network's ``.weights`` file, in its order; meta tensors will do."""
    return _layers(network)[0]
