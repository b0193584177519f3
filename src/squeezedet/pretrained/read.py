"""The weights of a SqueezeNet, from whatever format they were published in."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.files import read_regular
from squeezedet.pretrained.caffe import read_caffemodel
from squeezedet.pretrained.deep_compression import decode
from squeezedet.pretrained.onnx_file import read_convolutions

# ---- whether the tensors of a file are those that a network wants

MAX_NAMED = 3


def check_fit(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, NDArray[Any]], path: Path, left_over: Sequence[str] = ()
) -> None:
    """Compare names and shapes, in the network's order, and look at every number.

    Args:
        wanted: name and shape of each tensor of the network.
        given: the tensors of the file.
        path: of the file, for the errors.
        left_over: layers (``conv10`` of ``conv10.weight``) that the network has no place for and
            that the file may have.

    Raises:
        ModelError: a tensor is missing, has another shape, holds what is no number, or has no
            place in the network. The first one is named, with what was expected.
    """
    for name, shape in wanted.items():
        expected = f"{name} of shape {_shown(shape)}"
        if name not in given:
            raise ModelError(f"{path}: expected {expected}, but the file has only {_named(given)}")
        if given[name].shape != shape:
            raise ModelError(f"{path}: expected {expected}, but in the file it is {_shown(given[name].shape)}")
        if not np.isfinite(given[name]).all():
            raise ModelError(f"{path}: {name} holds infinity, or what is no number")
    places = (*wanted, *(n for n in given if n.rpartition(".")[0] in left_over))
    extra = [name for name in given if name not in places]
    if extra:
        raise ModelError(f"{path}: the network has no place for {_named(extra)}")


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"


def _named(names: Mapping[str, Any] | Sequence[str]) -> str:
    """The first few names; a file may hold thousands, and long ones."""
    first = ", ".join(repr(name)[:80] for name in list(names)[:MAX_NAMED])
    rest = len(names) - MAX_NAMED
    return f"{first} and {rest} more" if rest > 0 else first or "nothing"


# ---- NumPy's ``.npz``: a zip archive of arrays, read without pickle and without trust

NPZ_MAX_BYTES = 64_000_000
"""Packed and unpacked; SqueezeNets have 2.5 to 50 MB."""
MAX_ARRAYS = 10_000
DIRECTORY_ENTRY = b"PK\x01\x02"
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(path: Path) -> dict[str, NDArray[np.float32]]:
    """The arrays of an archive, as float32.

    Args:
        path: of the archive; compressed or not, of float16, float32 or float64.

    Raises:
        ModelError: it is missing, too large, also when unpacked, damaged, or holds other things
            than arrays of floats.
    """
    content = read_regular(path, NPZ_MAX_BYTES, what="weight file", error=ModelError)
    if content.count(DIRECTORY_ENTRY) > MAX_ARRAYS:  # zipfile would list them all first
        raise ModelError(f"{path}: more than {MAX_ARRAYS} arrays")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > NPZ_MAX_BYTES:
                raise ModelError(f"{path}: unpacks to more than the limit of {NPZ_MAX_BYTES} bytes")
            return {entry.filename.removesuffix(".npy"): _array(archive, entry, path) for entry in entries}
    except ModelError:
        raise
    except Exception as error:  # zipfile and zlib have half a dozen, and so has NumPy's header
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{path}: not an npz file, or a damaged one: {reason}") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> NDArray[np.float32]:
    """One member; its header must declare what follows, no more and no less."""
    with archive.open(entry) as file:
        shape, fortran, dtype = _header(file)
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise ModelError(f"{path}: {entry.filename!r} holds {dtype}, not floats")
        left = entry.file_size - file.tell()
        if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != left:
            raise ModelError(f"{path}: {entry.filename!r} declares {dtype} of {shape} and holds {left} bytes")
        content = bytearray(file.read(left))
        if len(content) != left:
            raise ModelError(f"{path}: {entry.filename!r} is cut short")
    with np.errstate(all="ignore"):  # a double too large for float32 becomes infinite
        flat = np.frombuffer(content, dtype).astype(np.float32, copy=False)
    return flat.reshape(shape, order="F" if fortran else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.floating]]:
    """Shape, whether in Fortran's order, and type of a ``.npy``."""
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"version {version} of a .npy is unknown")
    shape, fortran, dtype = HEADERS[version](file)
    return shape, fortran, dtype


# ---- ``.safetensors``: a JSON header with the place of each tensor, then the tensors

SAFETENSORS_MAX_BYTES = 64_000_000
MAX_HEADER_BYTES = 1_000_000
LENGTH = struct.Struct("<Q")


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors of a file, as float32.

    Args:
        path: of the file; its tensors are float16, float32 or float64.

    Raises:
        ModelError: it is missing, too large, damaged, or holds other things than floats.
    """
    from safetensors.numpy import load

    content = read_regular(path, SAFETENSORS_MAX_BYTES, what="weight file", error=ModelError)
    if len(content) < LENGTH.size or LENGTH.unpack_from(content)[0] > MAX_HEADER_BYTES:
        raise ModelError(f"{path}: not a safetensors file, or its header is too large")
    try:
        tensors = load(content)
    except Exception as error:  # SafetensorError; what NumPy lacks (bfloat16) has others
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{path}: not a safetensors file that can be read: {reason}") from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            raise ModelError(f"{path}: {name[:80]!r} holds {tensor.dtype}, not floats")
    with np.errstate(all="ignore"):  # a double too large for float32 becomes infinite
        return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


# ---- any format

Weights = dict[str, NDArray[np.float32]]

# How the authors of Deep Compression name the layers in their Caffe files.
OTHER_NAMES = {"conv1x1_1": "squeeze1x1", "conv1x1_2": "expand1x1", "conv3x3_2": "expand3x3", "conv_final": "conv10"}
FIRE_PARTS = ("squeeze1x1", "expand1x1", "expand3x3")
BLOBS = ("weight", "bias")
MAX_BYTES = 64_000_000
"""The largest network of the design space has 25 MB in float32."""


def read_weights(path: Path) -> Weights:
    """Read a weight file.

    Args:
        path: its suffix says what it is: .net (Deep Compression), .onnx,
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
