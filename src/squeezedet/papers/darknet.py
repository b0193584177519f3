"""What darknet's detectors share: layers, cells, and loading from ``.weights`` files."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.data.voc import VOC_CLASSES
from squeezedet.errors import ModelError
from squeezedet.files import open_regular
from squeezedet.models.layers import fold, scale_and_shift
from squeezedet.models.network import DetectionNetwork

# ------------------------------------------------------------ layers

LEAK = 0.1


class Convolution(nn.Module):
    """A "same" convolution, with batch norm or with a bias, and unless linear leaky ReLU 0.1."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, stride: int = 1, *, batch_norm: bool, linear: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(channels) if batch_norm else None
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.linear else F.leaky_relu(x, LEAK)

    def fold(self) -> None:
        """Let the convolution take over its normalization, in place."""
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
        columns, rows = self.grid
        x = F.pad(x, [self.kernel // 2] * 4)
        shifts = [x[:, :, i : i + rows, j : j + columns] for i in range(self.kernel) for j in range(self.kernel)]
        patches = torch.stack(shifts, dim=2).flatten(3).flatten(1, 2)  # (N, in * k * k, locations)
        out = torch.einsum("nkl,lck->ncl", patches, self.weight) + self.bias
        return out.view(-1, len(self.bias), rows, columns)


def initialize(network: nn.Module, output: nn.Linear | nn.Conv2d) -> None:
    """He's initialization (arXiv 1502.01852) for leaky ReLU; the output layer starts near zero.

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


# ------------------------------------------------------------ cells of a map


def grid_cells(columns: int, rows: int, device: torch.device) -> Tensor:
    """(rows * columns, 2) column and row of each cell, by row, then column."""
    row, column = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.stack([column.flatten(), row.flatten()], dim=1)


def inside_any(points: Tensor, regions: Tensor) -> Tensor:
    """(A, 2) points and (m, 4) xyxy regions to (A,) True where a point lies in a region."""
    points = points[:, None]
    return ((points > regions[:, :2]) & (points < regions[:, 2:])).all(dim=2).any(dim=1)


# ------------------------------------------------------------ weights files

VERSION = struct.Struct("<3i")
NOT_A_VERSION = 1000  # the first files have larger numbers in place of a version
COCO_CLASSES = 80


class DarknetDetector(DetectionNetwork):
    """A detector whose weights darknet publishes."""

    def load_darknet(self, path: Path) -> tuple[str, ...]:
        """Of a file with other classes all but the last layer is copied.

        A file says nothing of itself: it is VOC's (20 classes), COCO's (80) or has the classes of the network,
        whichever has its length.
        """
        size = path.stat().st_size if path.is_file() else 0
        for count in (len(self.config.classes), len(VOC_CLASSES), COCO_CLASSES):
            config = replace(self.config, classes=tuple(f"class {i}" for i in range(count)))
            with torch.device("meta"):
                floats = sum(part.tensor.numel() for part in stored_parts(type(self)(config)))
            if size - 4 * floats in (16, 20):  # the header's bytes
                twin = type(self)(config)
                load_weights(twin, path)
                own = self.state_dict()
                fitting = {n: t for n, t in twin.state_dict().items() if t.shape == own[n].shape}
                self.load_state_dict(own | fitting)
                return tuple(name for name, _ in self.named_parameters() if name not in fitting)
        load_weights(self, path)  # says what is wrong
        return ()


class Part(NamedTuple):
    """One array of a file; that of a connected layer's weights is (in, out) in the first files."""

    name: str
    tensor: Tensor
    connected: bool = False


def stored_parts(network: nn.Module) -> list[Part]:
    """The arrays of a network's file, in its order: that in which the modules are registered."""
    parts: list[Part] = []
    for name, module in network.named_modules():
        match module:
            case Convolution(conv=conv, norm=None):
                found = {"biases": conv.get_parameter("bias"), "weights": conv.weight}
            case Convolution(conv=conv, norm=nn.BatchNorm2d() as norm):
                means, variances = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
                found = {"biases": norm.bias, "scales": norm.weight, "means": means, "variances": variances}
                found["weights"] = conv.weight
            case nn.Linear() | LocallyConnected2d():
                found = {"biases": module.bias, "weights": module.weight}
            case _:
                continue
        parts += [Part(f"{part} of {name}", t, isinstance(module, nn.Linear)) for part, t in found.items()]
    return parts


@torch.no_grad()
def load_weights(network: nn.Module, path: Path) -> None:
    """Fill a network from a ``.weights`` file, which is read only when its length is known to fit.

    Raises:
        ModelError: the file cannot be read, its length is not exactly that of the network, or it holds what no weight
            can.
    """
    parts = stored_parts(network)
    with open_regular(path, what="weight file", error=ModelError) as file:
        transposed = _read_header(file, path)
        _check_length(file, path, parts)
        for name, tensor, connected in parts:
            values = torch.from_numpy(np.fromfile(file, "<f4", tensor.numel()).astype(np.float32))
            if not values.isfinite().all() or (name.startswith("variances") and (values < 0).any()):
                raise ModelError(
                    f"{path}: {name} hold what they cannot be (infinite, no number, or a variance below 0): is it "
                    "another network's file?"
                )
            if connected and transposed and tensor.ndim == 2:
                tensor.copy_(values.view(tensor.shape[::-1]).T)
            else:
                tensor.copy_(values.view(tensor.shape))


def _read_header(file: BinaryIO, path: Path) -> bool:
    """Skip version and images seen in training; True where connected weights are transposed."""
    head = file.read(VERSION.size)
    if len(head) == VERSION.size:
        major, minor, _ = VERSION.unpack(head)
        first = max(major, minor)
        seen = 8 if first < NOT_A_VERSION and major * 10 + minor >= 2 else 4
        if len(file.read(seen)) == seen:
            return bool(first > NOT_A_VERSION)
    raise ModelError(f"{path}: no darknet weights: it ends within the header of 16 or 20 bytes")


def _check_length(file: BinaryIO, path: Path, parts: list[Part]) -> None:
    size, end = os.fstat(file.fileno()).st_size, file.tell()
    total = end + 4 * sum(part.tensor.numel() for part in parts)
    for name, tensor, _ in parts:
        start, end = end, end + 4 * tensor.numel()
        if end > size:
            shape = "x".join(map(str, tensor.shape))
            raise ModelError(
                f"{path}: too short: {name} ({shape}) need bytes {start:,} to {end:,}, but the file ends at {size:,}; "
                f"this network's file has {total:,} bytes"
            )
    if size > end:
        raise ModelError(
            f"{path}: too long: {size - end:,} bytes are left over after {parts[-1].name}; this network's file has "
            f"{total:,} bytes"
        )
