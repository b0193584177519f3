"""The layers of darknet that its detectors share, and loading them from ``.weights`` files."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.detectors.folding import fold, scale_and_shift
from squeezedet.pretrained import darknet
from squeezedet.pretrained.darknet import Header, Layer

LEAK = 0.1


class Convolution(nn.Module):
    """A "same" convolution, with batch norm or with a bias, and unless linear leaky ReLU 0.1."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        stride: int = 1,
        *,
        batch_norm: bool,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, channels, kernel, stride, padding=kernel // 2, bias=not batch_norm
        )
        self.norm = nn.BatchNorm2d(channels) if batch_norm else None
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.linear else F.leaky_relu(x, LEAK)

    def fold(self) -> None:
        """Let the convolution take over its normalisation, in place."""
        if self.norm is not None:
            fold(self.conv, *scale_and_shift(self.norm))
            self.norm = None


class LocallyConnected2d(nn.Module):
    """A "same" convolution of stride 1 whose every location has weights of its own.

    Attributes:
        weight: (rows * columns, channels, in_channels * kernel * kernel), as darknet stores it.
        bias: (channels, rows * columns).
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, grid: tuple[int, int]) -> None:
        """``grid`` is (columns, rows) of the map."""
        super().__init__()
        self.in_channels, self.kernel, self.grid = in_channels, kernel, grid
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
        return out.view(-1, len(self.bias), rows, columns)


def initialise(network: nn.Module, output: nn.Linear | nn.Conv2d) -> None:
    """He's initialisation (arXiv 1502.01852) for leaky ReLU; the output layer starts near zero.

    Near zero is a box near its anchor, or of hardly any size, and no class preferred.
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
    nn.init.normal_(output.weight, std=0.1 / output.weight[0].numel() ** 0.5)


# ------------------------------------------------------------ weights files


def load_darknet(network: nn.Module, path: Path) -> Header:
    """Put a darknet ``.weights`` file into a network; returns the file's header.

    Raises:
        ModelError: the file is not one of exactly this network.
    """
    stored = _stored(network)
    header, arrays = darknet.read(path, [layer for layer, _ in stored])
    with torch.no_grad():
        for layer, tensors in stored:
            for (part, _), tensor in zip(layer.parts, tensors, strict=True):
                tensor.copy_(torch.from_numpy(arrays.pop(f"{layer.name}.{part}")))
    return header


def save_darknet(network: nn.Module, path: Path, header: Header | None = None) -> None:
    """Write a network as a darknet ``.weights`` file.

    Raises:
        SqueezeDetError: the file cannot be written.
    """
    stored = _stored(network)
    arrays = {
        f"{layer.name}.{part}": tensor.detach().float().cpu().numpy()
        for layer, tensors in stored
        for (part, _), tensor in zip(layer.parts, tensors, strict=True)
    }
    darknet.write(path, [layer for layer, _ in stored], arrays, header)


def weight_layers(network: nn.Module) -> list[Layer]:
    """The layers of a network's ``.weights`` file, in its order; works on the meta device too."""
    return [layer for layer, _ in _stored(network)]


def _stored(network: nn.Module) -> list[tuple[Layer, list[Tensor]]]:
    """Each layer with the tensors of its parts; modules are registered in the file's order."""
    stored: list[tuple[Layer, list[Tensor]]] = []
    for name, module in network.named_modules():
        match module:
            case Convolution():
                stored.append(_stored_convolution(name, module))
            case nn.Linear():
                layer = darknet.connected(name, module.in_features, module.out_features)
                stored.append((layer, [module.bias, module.weight]))
            case LocallyConnected2d():
                channels, locations = module.bias.shape
                layer = darknet.local(name, module.in_channels, channels, module.kernel, locations)
                stored.append((layer, [module.bias, module.weight]))
    return stored


def _stored_convolution(name: str, module: Convolution) -> tuple[Layer, list[Tensor]]:
    conv, norm = module.conv, module.norm
    layer = darknet.convolution(
        name, conv.in_channels, conv.out_channels, conv.kernel_size[0], batch_norm=norm is not None
    )
    if norm is not None:
        statistics = [norm.get_buffer(name) for name in ("running_mean", "running_var")]
        return layer, [norm.bias, norm.weight, *statistics, conv.weight]
    return layer, [conv.get_parameter("bias"), conv.weight]
