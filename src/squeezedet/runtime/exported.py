"""Model files of other programs, as ``squeezedet export`` writes them; the card is in each.

===============  ==========================================  =====================================
format           files                                       card
===============  ==========================================  =====================================
``onnx``         model.onnx                                  metadata_props, ``squeezedet.card``
``openvino``     model.xml, model.bin                        rt_info, ``squeezedet/card``
``ncnn``         model.ncnn.param, model.ncnn.bin            model.ncnn.json
===============  ==========================================  =====================================

The card's checksum is that of the graph (onnx), of model.bin (openvino), and of .param and .bin
one behind the other (ncnn).

An ONNX graph is checked operator by operator (``graph_check``). The other formats are programs, or go
to a parser that a hostile file may crash. So they are opened only if the caller trusts them, or if
this user's own ``squeezedet export`` wrote them: it notes their checksums in the user's cache folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from xml.parsers import expat

from squeezedet.coding.tensor import Cursor, number_bytes
from squeezedet.errors import ModelError, SqueezeDetError
from squeezedet.files import cache_folder, read_regular, write_atomic
from squeezedet.runtime.card import Card

KEY = b"squeezedet.card"
METADATA_PROPS = b"\x72"  # field 14 of ModelProto, a message
ENTRY_KEY, ENTRY_VALUE = b"\x0a", b"\x12"  # fields 1 and 2 of StringStringEntryProto, texts
HEAD = ENTRY_KEY + number_bytes(len(KEY)) + KEY + ENTRY_VALUE


def attach(graph: bytes, card: bytes) -> bytes:
    """An ONNX file of a graph and a card."""
    return graph + _field(card)


def detach(content: bytes, where: str) -> tuple[bytes, bytes]:
    """The card and the graph of an ONNX file that ``attach`` made; a ModelError if no card is at its end."""
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


FORMATS: Mapping[str, str] = MappingProxyType({".onnx": "onnx", ".xml": "openvino", ".param": "ncnn"})
"""The format of a file by its suffix."""
MAX_GRAPH_BYTES = 1_200_000_000  # YOLO v1, the largest of the papers, in float32
MAX_BYTES: Mapping[str, int] = MappingProxyType({".json": 1_000_000, ".param": 10_000_000, ".xml": 100_000_000})
"""Of the texts; everything else may have as many bytes as a bundle's graph."""
CARD_IN_XML = ("net", "rt_info", "squeezedet", "card")


class ExportedModel(NamedTuple):
    """What is in the files.

    Attributes:
        card: of the model.
        graph: ONNX bytes, or the text of model.xml or .param.
        format: a value of ``FORMATS``.
        weights: the second file of openvino and ncnn.
    """

    card: Card
    graph: bytes
    format: str
    weights: bytes


def is_exported(path: Path) -> bool:
    """Whether the name is that of a model file of another program."""
    return path.suffix in FORMATS


def companions(path: Path) -> tuple[Path, ...]:
    """The files that belong to one: of model.xml model.bin, of model.ncnn.param .bin and .json."""
    suffixes = {"openvino": (".bin",), "ncnn": (".bin", ".json")}
    return tuple(path.with_suffix(suffix) for suffix in suffixes.get(FORMATS[path.suffix], ()))


def read_card(path: Path) -> Card:
    """Only the card; a ModelError if the file is damaged, or has no good one."""
    return _card(path, _content(path))


def read(path: Path, *, trust_model: bool = False) -> ExportedModel:
    """Read a model and check it.

    Args:
        path: of the file with the graph; the others lie beside it.
        trust_model: open also a program that this user's own exports did not write.

    Raises:
        ModelError: a file is missing, too large, damaged, has another checksum, or is a program
            that is not trusted.
    """
    kind = FORMATS[path.suffix]
    graph = _content(path)
    card = _card(path, graph)
    weights = b""
    match kind:
        case "onnx":
            checked = graph = detach(graph, str(path))[1]
        case "openvino":
            checked = weights = _content(path.with_suffix(".bin"))
        case _:
            weights = _content(path.with_suffix(".bin"))
            checked = graph + weights
    if hashlib.sha256(checked).hexdigest() != card.graph_sha256:
        raise ModelError(f"{path}: the model's checksum is not the card's: a file was changed or damaged")
    note = _note(kind, (graph, weights))
    if not trust_model and kind != CHECKED and (note is None or not note.is_file()):
        raise ModelError(
            f"{path}: a {kind} file is a program, and this one was not exported here: give "
            "`trust_model=True` if you know who made it"
        )
    return ExportedModel(card, graph, kind, weights)


def _card(path: Path, content: bytes) -> Card:
    match FORMATS[path.suffix]:
        case "onnx":
            text = detach(content, str(path))[0]
        case "openvino":
            text = _card_in_xml(content, path)
        case _:
            text = _content(path.with_suffix(".json"))
    if len(text) > MAX_BYTES[".json"]:
        raise ModelError(f"{path}: the card is larger than {MAX_BYTES['.json']} bytes")
    return Card.from_json(text, str(path))


def _card_in_xml(content: bytes, path: Path) -> bytes:
    """The card in an OpenVINO file; read here, as an entity in XML can grow without end."""
    place: list[str] = []
    found: list[str] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        place.append(name)
        if len(place) == len(CARD_IN_XML) and tuple(place) == CARD_IN_XML:
            found.append(attributes.get("value", ""))

    def declare(*_: object) -> None:
        raise ModelError(f"{path}: declares an entity; a model of openvino has none")

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda _: place.pop()
    parser.EntityDeclHandler = declare
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # also of odd encodings
        raise ModelError(f"{path}: not a model of openvino, or a damaged one: {error}") from error
    if len(found) != 1:
        raise ModelError(f"{path}: a model of openvino without a card: not exported by squeezedet")
    return found[0].encode()


def _content(path: Path) -> bytes:
    limit = MAX_BYTES.get(path.suffix, MAX_GRAPH_BYTES)
    return read_regular(path, limit, what="model", error=ModelError)


# ---------------------------------------------------------------- trust

CHECKED = "onnx"
"""The format that is no program."""


def remember(form: str, parts: tuple[bytes, ...]) -> None:
    """Note that this user's export wrote a file; without a home nothing is noted."""
    note = _note(form, parts)
    if form == CHECKED or note is None:
        return
    try:
        write_atomic(note, f"a {form} file that squeezedet export wrote\n")
    except SqueezeDetError:
        return  # a read-only or full home: the file then needs trust_model


def _note(form: str, parts: tuple[bytes, ...]) -> Path | None:
    digest = hashlib.sha256(form.encode())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    folder = cache_folder()
    return None if folder is None else folder / "exported" / digest.hexdigest()
