"""Caffe's messages, as far as they matter here, in Google's own protobuf: a second opinion."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# (field, number, type) of each message; a name in capitals is a message type, * is repeated.
MESSAGES = {
    "BlobShape": [("*dim", 1, "int64")],
    "BlobProto": [
        ("num", 1, "int32"),
        ("channels", 2, "int32"),
        ("height", 3, "int32"),
        ("width", 4, "int32"),
        ("*data", 5, "float"),
        ("*diff", 6, "float"),
        ("shape", 7, "BlobShape"),
        ("*double_data", 8, "double"),
    ],
    "LayerParameter": [("name", 1, "string"), ("type", 2, "string"), ("*blobs", 7, "BlobProto")],
    "V1LayerParameter": [
        ("*bottom", 2, "string"),
        ("name", 4, "string"),
        ("type", 5, "int32"),
        ("*blobs", 6, "BlobProto"),
    ],
    "NetParameter": [("name", 1, "string"), ("*layers", 2, "V1LayerParameter"), ("*layer", 100, "LayerParameter")],
}


def net_parameter(*, packed: bool = True) -> Any:
    """The class NetParameter, whose lists of numbers are packed or not."""
    package = f"caffe_{'packed' if packed else 'loose'}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            field = described.field.add(name=name.lstrip("*"), number=number)
            field.label = field.LABEL_REPEATED if name.startswith("*") else field.LABEL_OPTIONAL
            if kind in MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
                continue
            field.type = getattr(field, f"TYPE_{kind.upper()}")
            if name.startswith("*") and kind != "string":
                field.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.NetParameter"))
