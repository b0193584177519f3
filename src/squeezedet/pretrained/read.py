"""The weights of a SqueezeNet, from whatever format they were published in."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.files import read_regular
from squeezedet.pretrained.onnx_file import BYTES, VARINT, Field, Floats, WireReader, read_graph

Weights = dict[str, Floats]
MAX_BYTES = 64_000_000
"""Of a file, also unpacked; the largest network of the design space has 25 MB in float32."""
BLOBS = ("weight", "bias")
# How the authors of Deep Compression name the layers in their Caffe files.
OTHER_NAMES = {"conv1x1_1": "squeeze1x1", "conv1x1_2": "expand1x1", "conv3x3_2": "expand3x3", "conv_final": "conv10"}


def read_weights(path: Path) -> Weights:
    """Read a weight file.

    Args:
        path: its suffix says what it is: .net (Deep Compression), .onnx, .caffemodel, .safetensors or .npz.

    Returns:
        Arrays by the names of Caffe's layers with dots: ``conv1.weight``, ``fire2.squeeze1x1.bias``, ``conv10.bias``;
        float32, weights (out, in, height, width), the input channels of conv1 as in the file, which is BGR in all that
        were published. An ONNX graph has other names; its convolutions are taken in the order of the graph.

    Raises:
        ModelError: the format is not known, or the file cannot be used.
    """
    readers: Mapping[str, Callable[[Path], Weights]] = {
        ".net": _compressed,
        ".onnx": _onnx,
        ".caffemodel": _caffe,
        ".safetensors": lambda p: _renamed(read_safetensors(p), p),
        ".npz": lambda p: _renamed(read_npz(p), p),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ModelError(f"{path}: not a known kind of weight file; known are {', '.join(readers)}")
    return reader(path)


def _content(path: Path, limit: int = MAX_BYTES) -> bytes:
    return read_regular(path, limit, what="weight file", error=ModelError)


def _canonical(name: str) -> str:
    """``fire2/squeeze1x1.weight`` to ``fire2.squeeze1x1.weight``."""
    return ".".join(OTHER_NAMES.get(part, part) for part in re.split("[/.]", name))


def _renamed(arrays: Weights, path: Path) -> Weights:
    """The arrays by canonical name; a ModelError where two have one."""
    found: dict[str, Any] = {}
    for name, array in arrays.items():
        if found.setdefault(_canonical(name), array) is not array:
            raise ModelError(f"{path}: two arrays are called {_canonical(name)}")
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


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
        left_over: layers (``conv10`` of ``conv10.weight``) that the network has no place for and that the file may
            have.

    Raises:
        ModelError: a tensor is missing, has another shape, holds what is no number, or has no place in the network. The
            first one is named, with what was expected.
    """
    for name, shape in wanted.items():
        expected = f"{name} of shape {_shown(shape)}"
        if name not in given:
            raise ModelError(f"{path}: expected {expected}, but the file has only {_named(given)}")
        if given[name].shape != shape:
            raise ModelError(f"{path}: expected {expected}, but in the file it is {_shown(given[name].shape)}")
        if not np.isfinite(given[name]).all():
            raise ModelError(f"{path}: {name} holds infinity, or what is no number")
    extra = [name for name in given if name not in wanted and name.rpartition(".")[0] not in left_over]
    if extra:
        raise ModelError(f"{path}: the network has no place for {_named(extra)}")


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"


def _named(names: Mapping[str, Any] | Sequence[str]) -> str:
    """The first few names; a file may hold thousands, and long ones."""
    first = ", ".join(repr(name)[:80] for name in list(names)[:MAX_NAMED])
    rest = len(names) - MAX_NAMED
    return f"{first} and {rest} more" if rest > 0 else first or "nothing"


# ---- ONNX: the names in a graph are anyone's choice; the order of the convolutions is the network's


def _onnx(path: Path) -> Weights:
    graph = read_graph(_content(path), path)
    weights = {}
    for layer, inputs in zip(_order(), graph.convolutions, strict=False):
        for part, name in zip(BLOBS, filter(None, inputs[1:]), strict=False):
            if name not in graph.tensors:
                raise ModelError(f"{path}: the weights {name[:80]!r} are not in the file")
            weights[f"{layer}.{part}"] = graph.tensors[name]
    return weights


def _order() -> Iterator[str]:
    """The layers of a SqueezeNet without convolutions in its bypasses; then whatever follows."""
    yield from compressed_shapes()
    for i in count(27):
        yield f"convolution{i}"


# ---- Caffe's ``.caffemodel``: a NetParameter message with the weights of each layer
#
# The numbers of the fields are those of Caffe's ``caffe.proto``. Both forms of a layer are read: LayerParameter and the
# older V1LayerParameter; and both forms of a shape: BlobShape, and the older num, channels, height, width.

MAX_LAYERS = 10_000
MAX_BLOBS = 16
"""Of one layer; a batch normalization has three."""
NAME_AND_BLOBS = {100: (1, 7), 2: (4, 6)}
"""Field of NetParameter, LayerParameter or V1LayerParameter -> the fields of its name and blobs."""
LEGACY_AXES = (1, 2, 3, 4)  # of BlobProto: num, channels, height, width
DATA, SHAPE, DOUBLE_DATA = 5, 7, 8
DIM = 1  # of BlobShape
VALUE_TYPES: dict[int, np.dtype[Any]] = {DATA: np.dtype("<f4"), DOUBLE_DATA: np.dtype("<f8")}


def read_caffemodel(path: Path) -> dict[str, tuple[Floats, ...]]:
    """The weights of each layer that has any, in the file's order.

    Returns:
        Layer name -> its blobs, float32, in Caffe's order and shapes: a convolution has (out, in / groups, height,
        width) and then a bias (out,); in files with the older form of shapes each has four axes, a bias (1, 1, 1, out).

    Raises:
        ModelError: the file is missing, too large, damaged, or holds no weights.
    """
    reader = WireReader(_content(path), path, "a Caffe model")
    layers: dict[str, tuple[Floats, ...]] = {}
    seen = 0
    for field in reader.fields():
        if field.number not in NAME_AND_BLOBS or field.wire != BYTES:
            continue
        seen += 1
        if seen > MAX_LAYERS:
            raise reader.error(field.start, f"more than {MAX_LAYERS} layers")
        name, blobs = _layer(reader, field)
        if blobs and name in layers:
            raise reader.error(field.start, f"a second layer {name!r} with weights")
        if blobs:
            layers[name] = blobs
    if not layers:
        raise ModelError(f"{path}: not a Caffe model with weights: no layer in it has any")
    return layers


def _layer(reader: WireReader, layer: Field) -> tuple[str, tuple[Floats, ...]]:
    name_field, blobs_field = NAME_AND_BLOBS[layer.number]
    name, messages = "", []
    for field in reader.fields(layer.start, layer.stop):
        if field.number == name_field and field.wire == BYTES:
            name = reader.name(field)
        elif field.number == blobs_field and field.wire == BYTES:
            messages.append(field)
            if len(messages) > MAX_BLOBS:
                raise reader.error(field.start, f"more than {MAX_BLOBS} blobs in one layer")
    return name, tuple(_blob(reader, field, name) for field in messages)


def _blob(reader: WireReader, blob: Field, layer: str) -> Floats:
    """One BlobProto as an array; what a blob declares must be what it holds."""
    values = {number: bytearray() for number in VALUE_TYPES}
    legacy: dict[int, int] = {}
    shape: list[int] = []
    for field in reader.fields(blob.start, blob.stop):
        if field.number in VALUE_TYPES:
            values[field.number] += memoryview(reader.content)[field.start : field.stop]
        elif field.number == SHAPE and field.wire == BYTES:
            shape = []
            for axis in reader.fields(field.start, field.stop):
                if axis.number == DIM and axis.wire in (VARINT, BYTES):
                    reader.add_axes(shape, axis)
        elif field.number in LEGACY_AXES and field.wire == VARINT:
            legacy[field.number] = field.value
    if legacy:  # an axis left out is 0 in Caffe's schema
        shape = [legacy.get(number, 0) for number in LEGACY_AXES]
    number = DATA if values[DATA] else DOUBLE_DATA
    return reader.array(f"layer {layer!r}", blob.start, values[number], VALUE_TYPES[number], shape)


def _caffe(path: Path) -> Weights:
    weights = {}
    for layer, blobs in read_caffemodel(path).items():
        for i, blob in enumerate(blobs):
            part = BLOBS[i] if i < len(BLOBS) else f"blob{i}"
            # Old files give each blob four axes, the bias (1, 1, 1, out).
            weights[f"{_canonical(layer)}.{part}"] = blob.reshape(-1) if i == 1 else blob
    return weights


# ---- the published Deep-Compressed SqueezeNet v1.0, ``compressed_SqueezeNet.net`` (Han, Mao, Dally, arXiv 1510.00149)
#
# Pruned, weights shared among 256 values, positions as gaps of four bits. The file (little endian) has no magic, no
# names and no shapes, and no Huffman coding:
#
# 1. the number of stored entries of each of the 26 convolutions, uint32;
# 2. for each convolution a codebook (256 float32), the bias (out float32), a code for each entry (uint8), and its gap:
#    the zeros before it, two gaps a byte, the lower half first.
#
# A run of more than 15 zeros is bridged by entries with gap 15 and code 0, which stands for zero. The lengths follow
# from the shapes and the counts, so the file's length is known exactly.

COMPRESSED_MAX_BYTES = 4_000_000
"""The layout cannot hold more for these shapes."""
CODES = 256
COUNT, FLOAT = np.dtype("<u4"), np.dtype("<f4")
# (squeeze, expand) of fire2 to fire9; one half of the expand filters is 1x1, the other 3x3.
FIRES = ((16, 128), (16, 128), (32, 256), (32, 256), (48, 384), (48, 384), (64, 512), (64, 512))


def compressed_shapes() -> dict[str, tuple[int, int, int, int]]:
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
    codebook: Floats
    bias: Floats
    codes: NDArray[np.uint8]
    gaps: NDArray[np.uint8]

    @property
    def positions(self) -> NDArray[np.int64]:
        """(entries,) ascending places in the flattened weights."""
        return np.cumsum(self.gaps.astype(np.int64) + 1) - 1

    def weight(self) -> Floats:
        """The weights, zero wherever nothing is stored."""
        flat = np.zeros(prod(self.shape), np.float32)
        flat[self.positions] = self.codebook[self.codes]
        return flat.reshape(self.shape)


def read_compressed(path: Path) -> list[CompressedLayer]:
    """Read the file, to its last byte.

    Raises:
        ModelError: it is missing, too large, damaged, or not this network in this layout.
    """
    content = _content(path, COMPRESSED_MAX_BYTES)
    shapes = compressed_shapes()
    at = len(shapes) * COUNT.itemsize
    if len(content) < at:
        raise ModelError(f"{path}: {len(content)} bytes are no compressed SqueezeNet")
    counts = [int(n) for n in np.frombuffer(content, COUNT, len(shapes))]
    needed = at
    for (name, shape), entries in zip(shapes.items(), counts, strict=True):
        if entries > prod(shape):
            raise ModelError(
                f"{path}: not a compressed SqueezeNet v1.0: {entries} entries for the {prod(shape)} weights of {name}"
            )
        needed += (CODES + shape[0]) * FLOAT.itemsize + entries + (entries + 1) // 2
    if len(content) != needed:
        raise ModelError(
            f"{path}: not a compressed SqueezeNet v1.0, or a damaged one: {len(content)} bytes, "
            f"and its table needs {needed}"
        )
    layers = []
    for (name, shape), entries in zip(shapes.items(), counts, strict=True):
        floats = np.frombuffer(content, FLOAT, CODES + shape[0], at).astype(np.float32)
        at += floats.nbytes
        codes = np.frombuffer(content, np.uint8, entries, at)
        pairs = np.frombuffer(content, np.uint8, (entries + 1) // 2, at + entries)
        at += codes.nbytes + pairs.nbytes
        gaps = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()[:entries]
        layer = CompressedLayer(name, shape, floats[:CODES], floats[CODES:], codes, gaps)
        if entries and layer.positions[-1] >= prod(shape):
            last = layer.positions[-1]
            raise ModelError(f"{path}: {name} is damaged: its last entry is weight {last} of {prod(shape)}")
        layers.append(layer)
    return layers


def _compressed(path: Path) -> Weights:
    weights = {}
    for layer in read_compressed(path):
        weights[f"{layer.name}.weight"] = layer.weight()
        weights[f"{layer.name}.bias"] = layer.bias
    return weights


# ---- NumPy's ``.npz``: a zip archive of arrays, read without pickle and without trust

MAX_ARRAYS = 10_000
DIRECTORY_ENTRY = b"PK\x01\x02"
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(path: Path) -> Weights:
    """The arrays of an archive, compressed or not, of float16, float32 or float64, as float32.

    Raises:
        ModelError: it is missing, too large, also when unpacked, damaged, or holds other things than arrays of floats.
    """
    content = _content(path)
    if content.count(DIRECTORY_ENTRY) > MAX_ARRAYS:  # zipfile would list them all first
        raise ModelError(f"{path}: more than {MAX_ARRAYS} arrays")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise ModelError(f"{path}: unpacks to more than the limit of {MAX_BYTES} bytes")
            return {entry.filename.removesuffix(".npy"): _array(archive, entry, path) for entry in entries}
    except ModelError:
        raise
    except Exception as error:  # zipfile and zlib have half a dozen, and so has NumPy's header
        raise ModelError(f"{path}: not an npz file, or a damaged one: {_first_line(error)}") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Floats:
    """One member; its header must declare what follows, no more and no less."""
    with archive.open(entry) as file:
        version = npy.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"version {version} of a .npy is unknown")
        shape, fortran, dtype = HEADERS[version](file)
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


# ---- ``.safetensors``: a JSON header with the place of each tensor, then the tensors

MAX_HEADER_BYTES = 1_000_000
LENGTH = struct.Struct("<Q")


def read_safetensors(path: Path) -> Weights:
    """The tensors of a file, float16, float32 or float64, as float32.

    Raises:
        ModelError: it is missing, too large, damaged, or holds other things than floats.
    """
    from safetensors.numpy import load

    content = _content(path)
    if len(content) < LENGTH.size or LENGTH.unpack_from(content)[0] > MAX_HEADER_BYTES:
        raise ModelError(f"{path}: not a safetensors file, or its header is too large")
    try:
        tensors = load(content)
    except Exception as error:  # SafetensorError; what NumPy lacks (bfloat16) has others
        raise ModelError(f"{path}: not a safetensors file that can be read: {_first_line(error)}") from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            raise ModelError(f"{path}: {name[:80]!r} holds {tensor.dtype}, not floats")
    with np.errstate(all="ignore"):  # a double too large for float32 becomes infinite
        return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
