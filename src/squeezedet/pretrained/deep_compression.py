"""The published Deep-Compressed SqueezeNet v1.0, ``compressed_SqueezeNet.net``.

Han, Mao, Dally: "Deep Compression", arXiv 1510.00149: pruned, weights shared among 256
values, positions as gaps of four bits. The file (little endian) has no magic, no names and no
shapes, and no Huffman coding:

1. the number of stored entries of each of the 26 convolutions, uint32;
2. for each convolution a codebook (256 float32), the bias (out float32), a code for each
   entry (uint8), and its gap: the zeros before it, two gaps a byte, the lower half first.

A run of more than 15 zeros is bridged by entries with gap 15 and code 0, which stands for
zero. The lengths follow from the shapes and the counts, so the file's length is known exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.files import read_regular

MAX_BYTES = 4_000_000
"""The layout cannot hold more for these shapes."""
CODES = 256
COUNT, FLOAT = np.dtype("<u4"), np.dtype("<f4")

# (squeeze, expand) of fire2 to fire9; one half of the expand filters is 1x1, the other 3x3.
FIRES = ((16, 128), (16, 128), (32, 256), (32, 256), (48, 384), (48, 384), (64, 512), (64, 512))


def shapes() -> dict[str, tuple[int, int, int, int]]:
    """Name and (out, in, height, width) of the convolutions of SqueezeNet v1.0, in file order."""
    layers = {"conv1": (96, 3, 7, 7)}
    channels = 96
    for i, (squeeze, expand) in enumerate(FIRES, 2):
        layers[f"fire{i}.squeeze1x1"] = (squeeze, channels, 1, 1)
        layers[f"fire{i}.expand1x1"] = (expand // 2, squeeze, 1, 1)
        layers[f"fire{i}.expand3x3"] = (expand // 2, squeeze, 3, 3)
        channels = expand
    return layers | {"conv10": (1000, channels, 1, 1)}


@dataclass(frozen=True, slots=True, eq=False)
class CompressedLayer:
    """One convolution as it is stored.

    Attributes:
        name: of the layer.
        shape: (out, in, height, width).
        codebook: (256,) float32, the values that the weights share.
        bias: (out,) float32.
        codes: (entries,) uint8, places in the codebook.
        gaps: (entries,) uint8, the zeros before each entry.
    """

    name: str
    shape: tuple[int, int, int, int]
    codebook: NDArray[np.float32]
    bias: NDArray[np.float32]
    codes: NDArray[np.uint8]
    gaps: NDArray[np.uint8]

    @property
    def positions(self) -> NDArray[np.int64]:
        """(entries,) ascending places in the flattened weights."""
        return np.cumsum(self.gaps.astype(np.int64) + 1) - 1

    def weight(self) -> NDArray[np.float32]:
        """The weights, float32, zero wherever nothing is stored."""
        flat = np.zeros(prod(self.shape), np.float32)
        flat[self.positions] = self.codebook[self.codes]
        return flat.reshape(self.shape)


def read_compressed(path: Path) -> tuple[CompressedLayer, ...]:
    """Read the file, to its last byte.

    Raises:
        ModelError: it is missing, too large, damaged, or not this network in this layout.
    """
    content = read_regular(path, MAX_BYTES, what="weight file", error=ModelError)
    layers = shapes()
    head = len(layers) * COUNT.itemsize
    if len(content) < head:
        raise ModelError(f"{path}: {len(content)} bytes are no compressed SqueezeNet")
    counts = [int(n) for n in np.frombuffer(content, COUNT, len(layers))]
    for (name, shape), count in zip(layers.items(), counts, strict=True):
        if count > prod(shape):
            raise ModelError(
                f"{path}: not a compressed SqueezeNet v1.0: {count} entries for the {prod(shape)} weights of {name}"
            )
    sizes = [_size(shape, n) for shape, n in zip(layers.values(), counts, strict=True)]
    if len(content) != head + sum(sizes):
        raise ModelError(
            f"{path}: not a compressed SqueezeNet v1.0, or a damaged one: {len(content)} bytes, "
            f"and its table needs {head + sum(sizes)}"
        )
    return tuple(_layers(content, path, layers, counts))


def decode(path: Path) -> dict[str, NDArray[np.float32]]:
    """The weights by name (``fire2.squeeze1x1.weight``, ``.bias``), float32.

    Raises:
        ModelError: see ``read_compressed``.
    """
    weights = {}
    for layer in read_compressed(path):
        weights[f"{layer.name}.weight"] = layer.weight()
        weights[f"{layer.name}.bias"] = layer.bias
    return weights


def _size(shape: tuple[int, ...], count: int) -> int:
    """Bytes of one convolution with so many entries."""
    return (CODES + shape[0]) * FLOAT.itemsize + count + (count + 1) // 2


def _layers(
    content: bytes, path: Path, layers: dict[str, tuple[int, int, int, int]], counts: list[int]
) -> Iterator[CompressedLayer]:
    at = len(layers) * COUNT.itemsize
    for (name, shape), count in zip(layers.items(), counts, strict=True):
        floats = np.frombuffer(content, FLOAT, CODES + shape[0], at).astype(np.float32)
        at += floats.nbytes
        codes = np.frombuffer(content, np.uint8, count, at)
        pairs = np.frombuffer(content, np.uint8, (count + 1) // 2, at + count)
        at += codes.nbytes + pairs.nbytes
        gaps = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()[:count]
        layer = CompressedLayer(name, shape, floats[:CODES], floats[CODES:], codes, gaps)
        if count and layer.positions[-1] >= prod(shape):
            last = layer.positions[-1]
            raise ModelError(f"{path}: {name} is damaged: its last entry is weight {last} of {prod(shape)}")
        yield layer
