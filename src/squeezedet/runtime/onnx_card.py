"""A card in an ONNX file: the last of its ``metadata_props``, so that the graph stays as it is.

An ONNX file is a row of fields in the encoding of Protocol Buffers, and a field may stand
anywhere in it. The card is put behind the graph, and everything before it is the graph, byte
by byte: it still has the checksum that the card names. Other programs see one more entry of
metadata, ``squeezedet.card``.
"""

from __future__ import annotations

from squeezedet.coding.cursor import Cursor, number_bytes
from squeezedet.errors import ModelError

KEY = b"squeezedet.card"
METADATA_PROPS = b"\x72"  # field 14 of ModelProto, a message
ENTRY_KEY, ENTRY_VALUE = b"\x0a", b"\x12"  # fields 1 and 2 of StringStringEntryProto, texts
HEAD = ENTRY_KEY + number_bytes(len(KEY)) + KEY + ENTRY_VALUE


def attach(graph: bytes, card: bytes) -> bytes:
    """An ONNX file of a graph and a card."""
    return graph + _field(card)


def detach(content: bytes, where: str) -> tuple[bytes, bytes]:
    """The card and the graph of an ONNX file that ``attach`` made.

    Raises:
        ModelError: there is no card, or it is not at the end.
    """
    at = content.rfind(HEAD)
    if at < 0:
        raise ModelError(f"{where}: an ONNX file without a card: not exported by squeezedet")
    cursor = Cursor(content[at + len(HEAD) :], f"{where}: the card")
    card = cursor.take(cursor.number())
    cursor.end()
    field = _field(card)
    if not content.endswith(field):
        raise ModelError(f"{where}: the card is damaged")
    return card, content[: -len(field)]


def _field(card: bytes) -> bytes:
    entry = HEAD + number_bytes(len(card)) + card
    return METADATA_PROPS + number_bytes(len(entry)) + entry
