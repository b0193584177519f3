"""The published Deep-Compressed SqueezeNet v1.0, ``compressed_SqueezeNet.net``.

Han, Mao, Dally: "Deep Compression", arXiv 1510.00149: pruned, weights shared among 256
values, positions as gaps of four bits. The file (little endian) has no magic, no names and no
shapes, and no Huffman coding:

1. the number of stored entries of each of the 26 convolutions, uint32;
2. for each convolution a codebook (256 float32), the bias (out float32), a code for each
   entry (uint8), and its gap: the zeros before it, two gaps a byte, the lower half first.

A run of more than 15 zeros is bridged by entries with gap 15 and code 0, which stands for
zero. The lengths follow from the shapes and the counts, so the file's length is known exactly.

Deep Compression's last step, Huffman coding, is not in the file: ``sizes`` says what it would
save.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding.huffman import code_lengths
from squeezedet.errors import ModelError
from squeezedet.pretrained.content import read_content

MAX_BYTES = 4_000_000
"""The layout cannot hold more for these shapes."""
CODES = 256
GAPS = 16
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
        positions: (entries,) int64, ascending places in the flattened weights.
    """

    name: str
    shape: tuple[int, int, int, int]
    codebook: NDArray[np.float32]
    bias: NDArray[np.float32]
    codes: NDArray[np.uint8]
    positions: NDArray[np.int64]

    def weight(self) -> NDArray[np.float32]:
        """The weights, float32, zero wherever nothing is stored."""
        flat = np.zeros(prod(self.shape), np.float32)
        flat[self.positions] = self.codebook[self.codes]
        return flat.reshape(self.shape)

    def gaps(self) -> NDArray[np.uint8]:
        """(entries,) the zeros before each entry."""
        return (np.diff(self.positions, prepend=-1) - 1).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Where the bits of the network are spent.

    Attributes:
        other_bits: counts, codebooks and biases.
        code_bits: the entries' codes, as bytes.
        gap_bits: the entries' gaps, four bits each.
        huffman_code_bits: the codes with a Huffman code for each layer, without its table.
        huffman_gap_bits: the gaps likewise.
    """

    other_bits: int
    code_bits: int
    gap_bits: int
    huffman_code_bits: int
    huffman_gap_bits: int


def read_compressed(path: Path) -> tuple[CompressedLayer, ...]:
    """Read the file, to its last byte.

    Raises:
        ModelError: it is missing, too large, damaged, or not this network in this layout.
    """
    content = read_content(path, MAX_BYTES)
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


def write_compressed(layers: Sequence[CompressedLayer]) -> bytes:
    """The file's bytes again: those of the published one, if it was read."""
    parts = [np.array([layer.codes.size for layer in layers], COUNT).tobytes()]
    for layer in layers:
        gaps = np.append(layer.gaps(), np.zeros(layer.codes.size % 2, np.uint8))
        floats = (layer.codebook.astype(FLOAT), layer.bias.astype(FLOAT))
        pairs = gaps[::2] | gaps[1::2] << 4
        parts += [part.tobytes() for part in (*floats, layer.codes, pairs)]
    return b"".join(parts)


def sizes(layers: Sequence[CompressedLayer]) -> Sizes:
    """What the network needs as it is stored, and with Huffman coding (paper, section 4)."""
    entries = sum(layer.codes.size for layer in layers)
    floats = sum(layer.codebook.size + layer.bias.size for layer in layers)
    return Sizes(
        other_bits=8 * (len(layers) * COUNT.itemsize + floats * FLOAT.itemsize),
        code_bits=8 * entries,
        gap_bits=4 * entries,
        huffman_code_bits=sum(_huffman_bits(layer.codes, CODES) for layer in layers),
        huffman_gap_bits=sum(_huffman_bits(layer.gaps(), GAPS) for layer in layers),
    )


def _huffman_bits(symbols: NDArray[np.uint8], alphabet: int) -> int:
    counts = np.bincount(symbols, minlength=alphabet).astype(np.int64)
    return int(counts @ code_lengths(counts, max_length=32))


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
        positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
        if count and positions[-1] >= prod(shape):
            raise ModelError(f"{path}: {name} is damaged: its last entry is weight {positions[-1]} of {prod(shape)}")
        yield CompressedLayer(name, shape, floats[:CODES], floats[CODES:], codes, positions)
