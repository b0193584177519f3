"""Caffe's ``.caffemodel``: a NetParameter message with the weights of each layer.

The numbers of the fields are those of Caffe's ``caffe.proto``. Both forms of a layer are
read: LayerParameter (field 100 of the network) and the older V1LayerParameter (field 2),
and both forms of a shape: BlobShape, and the older num, channels, height, width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from squeezedet.errors import ModelError
from squeezedet.files import read_regular
from squeezedet.pretrained.onnx_file import BYTES, VARINT, Field, Floats, WireReader

MAX_BYTES = 700_000_000
"""VGG16 has 553 MB."""
MAX_LAYERS = 10_000
MAX_BLOBS = 16
"""Of one layer; a batch normalization has three."""

LAYER, V1_LAYER = 100, 2  # fields of NetParameter
NAME_AND_BLOBS = {LAYER: (1, 7), V1_LAYER: (4, 6)}  # fields of a layer
LEGACY_AXES = (1, 2, 3, 4)  # of BlobProto: num, channels, height, width
DATA, SHAPE, DOUBLE_DATA = 5, 7, 8
DIM = 1  # of BlobShape
VALUE_TYPES: dict[int, np.dtype[Any]] = {DATA: np.dtype("<f4"), DOUBLE_DATA: np.dtype("<f8")}


def read_caffemodel(path: Path) -> dict[str, tuple[Floats, ...]]:
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
    reader = WireReader(read_regular(path, MAX_BYTES, what="weight file", error=ModelError), path, "a Caffe model")
    layers: dict[str, tuple[Floats, ...]] = {}
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


def _layer(reader: WireReader, layer: Field) -> tuple[str, tuple[Floats, ...]]:
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
