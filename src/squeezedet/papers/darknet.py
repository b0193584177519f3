"""The layers of darknet that its detectors share, and loading them from ``.weights`` files."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from squeezedet.errors import ModelError
from squeezedet.files import replacing
from squeezedet.models.layers import fold, scale_and_shift

FLOAT = np.dtype("<f4")
_VERSION = struct.Struct("<3i")
_NOT_A_VERSION = 1000


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its floats.

    Attributes:
        major, minor, revision: of the layout; above 1000 for the files older than versions.
        seen: images seen in training.
    """

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0

    @property
    def transposed(self) -> bool:
        """Whether the weights of connected layers are stored as (in, out)."""
        return self.major > _NOT_A_VERSION or self.minor > _NOT_A_VERSION

    @property
    def seen_format(self) -> str:
        """How ``seen`` is stored: 64 or 32 bits, little endian."""
        versioned = max(self.major, self.minor) < _NOT_A_VERSION
        return "<q" if versioned and self.major * 10 + self.minor >= 2 else "<i"

    @property
    def size_bytes(self) -> int:
        """Where the floats begin."""
        return _VERSION.size + struct.calcsize(self.seen_format)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: for messages, and before the parts' names in what ``read`` gives.
        kind: ``convolution``, ``connected`` or ``local``.
        parts: name and shape of each array, in the order of the file.
    """

    name: str
    kind: str
    parts: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def floats(self) -> int:
        """How many numbers the layer takes in a file."""
        return sum(prod(shape) for _, shape in self.parts)


def convolution(name: str, in_channels: int, out_channels: int, kernel: int, *, batch_norm: bool) -> Layer:
    """A convolution, with its batch norm if it has one."""
    norm = ("scales", "means", "variances") if batch_norm else ()
    vectors = tuple((part, (out_channels,)) for part in ("biases", *norm))
    weights = ("weights", (out_channels, in_channels, kernel, kernel))
    return Layer(name, "convolution", (*vectors, weights))


def connected(name: str, inputs: int, outputs: int) -> Layer:
    """A fully connected layer."""
    return Layer(name, "connected", (("biases", (outputs,)), ("weights", (outputs, inputs))))


def local(name: str, in_channels: int, out_channels: int, kernel: int, locations: int) -> Layer:
    """A convolution with weights of its own at each location."""
    weights = (locations, out_channels, in_channels * kernel * kernel)
    return Layer(name, "local", (("biases", (out_channels, locations)), ("weights", weights)))


def read(path: Path, layers: Sequence[Layer]) -> tuple[Header, dict[str, NDArray[np.float32]]]:
    """Read the weights of a network.

    Args:
        path: of the file.
        layers: of the network, in its order.

    Returns:
        The header, and ``layer.part`` to array, float32 in the shapes of the layers; connected
        weights are (out, in) however the file stores them.

    Raises:
        ModelError: the file cannot be read, its length is not exactly that of the layers, or it holds what no weight
            can be. Nothing is read before the length is known to fit.
    """
    try:
        if not path.is_file():
            raise ModelError(f"{path}: there is no such file")
        with path.open("rb") as file:
            header = _read_header(file, path)
            _check_length(path, path.stat().st_size, header, layers)
            return header, dict(_read_parts(file, path, header, layers))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read_header(file: BinaryIO, path: Path) -> Header:
    version = file.read(_VERSION.size)
    if len(version) == _VERSION.size:
        header = Header(*_VERSION.unpack(version))
        seen = file.read(struct.calcsize(header.seen_format))
        if _VERSION.size + len(seen) == header.size_bytes:
            (count,) = struct.unpack(header.seen_format, seen)
            return Header(header.major, header.minor, header.revision, count)
    raise ModelError(f"{path}: no darknet weights: it ends within the header of 16 or 20 bytes")


def _check_length(path: Path, size: int, header: Header, layers: Sequence[Layer]) -> None:
    total = header.size_bytes + FLOAT.itemsize * sum(layer.floats for layer in layers)
    expected = f"this network's file has {total:,} bytes"
    end = header.size_bytes
    for layer in layers:
        start, end = end, end + FLOAT.itemsize * layer.floats
        if end > size:
            shapes = ", ".join(f"{part} {'x'.join(map(str, shape))}" for part, shape in layer.parts)
            raise ModelError(
                f"{path}: too short: {layer.kind} {layer.name} ({shapes}) needs bytes {start:,} "
                f"to {end:,}, but the file ends at {size:,}; {expected}"
            )
    if size > end:
        last = f"{layers[-1].kind} {layers[-1].name}" if layers else "the header"
        raise ModelError(f"{path}: too long: {size - end:,} bytes are left over after {last}; {expected}")


def _read_parts(
    file: BinaryIO, path: Path, header: Header, layers: Sequence[Layer]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for layer in layers:
        for part, shape in layer.parts:
            values = np.fromfile(file, FLOAT, prod(shape)).astype(np.float32, copy=False)
            if not np.isfinite(values).all() or (part == "variances" and (values < 0).any()):
                raise ModelError(
                    f"{path}: {part} of {layer.kind} {layer.name} hold what they cannot be "
                    "(infinite, no number, or a variance below 0): is it another network's file?"
                )
            if _is_transposed(header, layer, part):
                yield f"{layer.name}.{part}", np.ascontiguousarray(values.reshape(shape[::-1]).T)
            else:
                yield f"{layer.name}.{part}", values.reshape(shape)


def _is_transposed(header: Header, layer: Layer, part: str) -> bool:
    return header.transposed and layer.kind == "connected" and part == "weights"


def write(
    path: Path, layers: Sequence[Layer], arrays: Mapping[str, NDArray[np.float32]], header: Header | None = None
) -> None:
    """Write a network's weights, whole or not at all.

    Args:
        path: of the file.
        layers: of the network, in its order.
        arrays: as ``read`` gives them; each is looked up once, when its turn comes.
        header: version 0.2.0 unless given; an old one gives an old layout.

    Raises:
        ValueError: an array has not the shape of its layer.
        SqueezeDetError: the file cannot be written.
    """
    header = header or Header()
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_VERSION.pack(header.major, header.minor, header.revision))
        file.write(struct.pack(header.seen_format, header.seen))
        for layer in layers:
            for part, shape in layer.parts:
                values = arrays[f"{layer.name}.{part}"]
                if values.shape != shape:
                    raise ValueError(f"{layer.name}.{part} is {values.shape}, expected {shape}")
                stored = values.T if _is_transposed(header, layer, part) else values
                np.ascontiguousarray(stored, FLOAT).tofile(file)


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
        """(N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
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
        """(N, in_channels, rows, columns) to (N, channels, rows, columns)."""
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


# ------------------------------------------------------------ weights files


def load_darknet(network: nn.Module, path: Path) -> Header:
    """Put a darknet ``.weights`` file into a network; returns the file's header.

    Raises:
        ModelError: the file is not one of exactly this network.
    """
    stored = _stored(network)
    header, arrays = read(path, [layer for layer, _ in stored])
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
    write(path, [layer for layer, _ in stored], arrays, header)


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
                layer = connected(name, module.in_features, module.out_features)
                stored.append((layer, [module.bias, module.weight]))
            case LocallyConnected2d():
                channels, locations = module.bias.shape
                layer = local(name, module.in_channels, channels, module.kernel, locations)
                stored.append((layer, [module.bias, module.weight]))
    return stored


def _stored_convolution(name: str, module: Convolution) -> tuple[Layer, list[Tensor]]:
    conv, norm = module.conv, module.norm
    layer = convolution(name, conv.in_channels, conv.out_channels, conv.kernel_size[0], batch_norm=norm is not None)
    if norm is not None:
        statistics = [norm.get_buffer(name) for name in ("running_mean", "running_var")]
        return layer, [norm.bias, norm.weight, *statistics, conv.weight]
    return layer, [conv.get_parameter("bias"), conv.weight]
