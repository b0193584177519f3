"""The weights of a SqueezeNet, from whatever format they were published in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.pretrained.caffe import read_caffemodel
from squeezedet.pretrained.classifier_file import read_classifier
from squeezedet.pretrained.deep_compression import decode
from squeezedet.pretrained.npz_file import read_npz
from squeezedet.pretrained.onnx_file import read_convolutions
from squeezedet.pretrained.safetensors_file import read_safetensors

Weights = dict[str, NDArray[np.float32]]

# How the authors of Deep Compression name the layers in their Caffe files.
OTHER_NAMES = {
    "conv1x1_1": "squeeze1x1",
    "conv1x1_2": "expand1x1",
    "conv3x3_2": "expand3x3",
    "conv_final": "conv10",
}
FIRE_PARTS = ("squeeze1x1", "expand1x1", "expand3x3")
BLOBS = ("weight", "bias")
MAX_BYTES = 64_000_000
"""The largest network of the design space has 25 MB in float32."""


def read_weights(path: Path) -> Weights:
    """Read a weight file.

    Args:
        path: its suffix says what it is: .net (Deep Compression), .sqz (ours), .onnx,
            .caffemodel, .safetensors or .npz.

    Returns:
        Arrays by the names of Caffe's layers with dots: ``conv1.weight``,
        ``fire2.squeeze1x1.bias``, ``conv10.bias``; float32, weights (out, in, height, width),
        the input channels of conv1 as in the file, which is BGR in all that were published.
        An ONNX graph has other names; its convolutions are taken in the order of the graph.

    Raises:
        ModelError: the format is not known, or the file cannot be used.
    """
    readers: Mapping[str, Callable[[Path], Weights]] = {
        ".net": decode,
        ".sqz": read_classifier,
        ".onnx": _onnx,
        ".caffemodel": _caffe,
        ".safetensors": lambda p: _renamed(read_safetensors(p)),
        ".npz": lambda p: _renamed(read_npz(p)),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ModelError(f"{path}: not a known kind of weight file; known are {', '.join(readers)}")
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: more than {MAX_BYTES} bytes are too many for a SqueezeNet")
    return reader(path)


def _canonical(name: str) -> str:
    """``fire2/squeeze1x1.weight`` to ``fire2.squeeze1x1.weight``."""
    parts = re.split("[/.]", name)
    return ".".join(OTHER_NAMES.get(part, part) for part in parts)


def _renamed(arrays: Weights) -> Weights:
    return {_canonical(name): array for name, array in arrays.items()}


def _caffe(path: Path) -> Weights:
    weights = {}
    for layer, blobs in read_caffemodel(path).items():
        for i, blob in enumerate(blobs):
            part = BLOBS[i] if i < len(BLOBS) else f"blob{i}"
            # Old files give each blob four axes, the bias (1, 1, 1, out).
            weights[f"{_canonical(layer)}.{part}"] = blob.reshape(-1) if i == 1 else blob
    return weights


def _onnx(path: Path) -> Weights:
    """The names in a graph are anyone's choice; the order of the convolutions is the network's."""
    weights = {}
    for name, convolution in zip(_order(), read_convolutions(path), strict=False):
        weights[f"{name}.weight"] = convolution.weight
        if convolution.bias is not None:
            weights[f"{name}.bias"] = convolution.bias
    return weights


def _order() -> Iterator[str]:
    """The layers of a SqueezeNet without convolutions in its bypasses; then whatever follows."""
    yield "conv1"
    for i in range(2, 10):
        yield from (f"fire{i}.{part}" for part in FIRE_PARTS)
    yield "conv10"
    for i in count(27):
        yield f"convolution{i}"
