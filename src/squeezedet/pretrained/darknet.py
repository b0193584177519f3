"""Darknet's ``.weights`` files: a header, then the floats of every layer in the network's order.

The layout is that of darknet's parser (``load_weights_upto`` and ``save_weights_upto``), little
endian and without names or shapes, so a file only fits the network that it was written for:

header         major, minor, revision as int32, then the number of images seen in training:
               int64 from version 0.2 on, int32 before.
convolution    biases (out); with batch norm scales, means, variances (out each); weights
               (out, in, kernel, kernel).
connected      biases (out); weights (out, in). The first files had three float32 of the
               training (rate, momentum, decay) where the version is now; their bits read as a
               version above 1000, and such a file holds the weights as (in, out).
local          biases (out, locations); weights (locations, out, in * kernel * kernel).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.files import replacing

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


def convolution(
    name: str, in_channels: int, out_channels: int, kernel: int, *, batch_norm: bool
) -> Layer:
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
        ModelError: the file cannot be read, its length is not exactly that of the layers, or it
            holds what no weight can be. Nothing is read before the length is known to fit.
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
        raise ModelError(
            f"{path}: too long: {size - end:,} bytes are left over after {last}; {expected}"
        )


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
    path: Path,
    layers: Sequence[Layer],
    arrays: Mapping[str, NDArray[np.float32]],
    header: Header | None = None,
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
