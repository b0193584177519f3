"""Caffe's ``.caffemodel``: a NetParameter message with the weights of each layer.

The numbers of the fields are those of Caffe's ``caffe.proto``. Both forms of a layer are
read: LayerParameter (field 100 of the network) and the older V1LayerParameter (field 2),
and both forms of a shape: BlobShape, and the older num, channels, height, width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.pretrained.content import read_content
from squeezedet.pretrained.onnx_file import BYTES, FIXED32, FIXED64, VARINT, Field, WireReader

Blob = NDArray[np.float32]

MAX_BYTES = 700_000_000
"""VGG16 has 553 MB."""
MAX_LAYERS = 10_000
MAX_BLOBS = 16
"""Of one layer; a batch normalization has three."""
MAX_AXES = 32
"""Caffe's own limit (kMaxBlobAxes)."""

LAYER, V1_LAYER = 100, 2  # fields of NetParameter
NAME_AND_BLOBS = {LAYER: (1, 7), V1_LAYER: (4, 6)}  # fields of a layer
LEGACY_AXES = (1, 2, 3, 4)  # of BlobProto: num, channels, height, width
DATA, SHAPE, DOUBLE_DATA = 5, 7, 8
DIM = 1  # of BlobShape
VALUE_TYPES = {DATA: ("<f4", FIXED32), DOUBLE_DATA: ("<f8", FIXED64)}


def read_caffemodel(path: Path) -> dict[str, tuple[Blob, ...]]:
    """The weights of each layer that has any, in the file's order.

    Args:
        path: of the ``.caffemodel``.

    Returns:
        Layer name -> its blobs, float32, in Caffe's order and shapes: a convolution has
        (out, in / groups, height, width) and then a bias (out,); in files with the older form
        of shapes each has four axes, a bias (1, 1, 1, out).

    Raises:
        ModelError: the file is missing, too large, damaged, or holds no weights.
    """
    reader = WireReader(read_content(path, MAX_BYTES), path, "a Caffe model")
    layers: dict[str, tuple[Blob, ...]] = {}
    count = 0
    for field in reader.fields():
        if field.number not in NAME_AND_BLOBS or field.wire != BYTES:
            continue
        count += 1
        if count > MAX_LAYERS:
            raise reader.error(field.start, f"more than {MAX_LAYERS} layers")
        name, blobs = _layer(reader, field)
        if blobs and name in layers:
            raise reader.error(field.start, f"a second layer {name!r} with weights")
        if blobs:
            layers[name] = blobs
    if not layers:
        raise ModelError(f"{path}: not a Caffe model with weights: no layer in it has any")
    return layers


def _layer(reader: WireReader, layer: Field) -> tuple[str, tuple[Blob, ...]]:
    """Name and blobs of a LayerParameter or a V1LayerParameter."""
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


def _blob(reader: WireReader, blob: Field, layer: str) -> Blob:
    """One BlobProto as an array; what a blob declares must be what it holds."""
    values = {DATA: bytearray(), DOUBLE_DATA: bytearray()}
    legacy: dict[int, int] = {}
    shape: list[int] = []
    for field in reader.fields(blob.start, blob.stop):
        if field.number in VALUE_TYPES and field.wire in (BYTES, VALUE_TYPES[field.number][1]):
            values[field.number] += memoryview(reader.content)[field.start : field.stop]
        elif field.number == SHAPE and field.wire == BYTES:
            shape = _shape(reader, field)
        elif field.number in LEGACY_AXES and field.wire == VARINT:
            legacy[field.number] = field.value
    if legacy:  # an axis left out is 0 in Caffe's schema
        shape = [legacy.get(number, 0) for number in LEGACY_AXES]
    number = DATA if values[DATA] else DOUBLE_DATA
    dtype = np.dtype(VALUE_TYPES[number][0])
    held, rest = divmod(len(values[number]), dtype.itemsize)
    if rest or min(shape, default=1) < 1 or held != math.prod(shape):
        declared = "x".join(map(str, shape)) or "one number"
        raise reader.error(blob.start, f"layer {layer!r} declares a blob of {declared} and holds {held} numbers")
    with np.errstate(all="ignore"):  # a double too large for float32 becomes infinite
        return np.frombuffer(values[number], dtype).astype(np.float32, copy=False).reshape(shape)


def _shape(reader: WireReader, message: Field) -> list[int]:
    """The axes of a BlobShape."""
    shape = []
    for size in _sizes(reader, message):
        shape.append(size)
        if len(shape) > MAX_AXES:
            raise reader.error(message.start, f"a blob of more than {MAX_AXES} axes")
    return shape


def _sizes(reader: WireReader, message: Field) -> Iterator[int]:
    for field in reader.fields(message.start, message.stop):
        if field.number == DIM and field.wire in (VARINT, BYTES):
            yield from reader.numbers(field)
