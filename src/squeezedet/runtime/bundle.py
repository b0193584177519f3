"""Bundle: one file with everything needed to detect.

A zip archive of a card and a graph, whose weights may be coded:

===============  =================================================================================
``card.json``    everything but the graph, see ``card``
``model.onnx``   the graph, stored as it is; or instead of it, if that is smaller:
``template``     the graph without the numbers of its coded tensors, if there are any, deflated
``tensors.json`` which tensors were cut out, and where, deflated
``tensors.bin``  these, coded, see ``coding.tensor``
===============  =================================================================================

A member ``signature.json`` may say who made it, see ``signature``.

Nothing in it is executed but the graph's operators, which ``graph_check`` has seen before, and the
graph must have the checksum that the card names. ``.sqz`` files of squeezedet 0.1 are read as well,
and so are the files that were exported for other programs, see ``exported``.
"""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from squeezedet.coding import legacy
from squeezedet.coding.graph import MAX_GRAPH_BYTES, CodedGraph, coded_graph, decode_graph, encode_graph, read_index
from squeezedet.errors import ModelError, UsageError
from squeezedet.files import open_regular, read_regular, replacing
from squeezedet.runtime import DEFAULT_MODEL, exported, signature
from squeezedet.runtime.card import Card
from squeezedet.runtime.graph_check import check_graph

SUFFIX, FORMER_SUFFIX = ".bundle", ".sqz"
SUFFIXES = (SUFFIX, FORMER_SUFFIX)
CARD, GRAPH = "card.json", "model.onnx"
TEMPLATE, INDEX, CODED = "template", "tensors.json", "tensors.bin"
MAX_BYTES: Mapping[str, int] = MappingProxyType(
    {
        CARD: 1_000_000,
        GRAPH: exported.MAX_GRAPH_BYTES,
        TEMPLATE: MAX_GRAPH_BYTES,
        INDEX: 4_000_000,
        CODED: MAX_GRAPH_BYTES,
        signature.MEMBER: signature.MAX_SIGNATURE_BYTES,
    }
)
"""Of each member."""
MAX_FILE_BYTES = exported.MAX_GRAPH_BYTES + 2_000_000
WORTH_DEFLATING = 0.9
"""A graph that deflates to less than this share, as one in int8 does, is a template without coded tensors."""
STORED = (GRAPH, CODED)
"""These are stored as they are: a small file must not become a huge one."""
WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
FORMER_NAMES = {"squeezedet": "street", "squeezedet-int8": "street", "street-int8": "street", "tiny-ssd": "street-ssd"}
"""Until version 0.2 shipped models had the names of networks; these still open them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A model in memory.

    Attributes:
        card: everything but the graph.
        graph: ONNX bytes; of another format what its engine reads.
        format: ``onnx``, or that of an exported file, see ``exported``.
        weights: what openvino and ncnn have in a file of its own; empty otherwise.
    """

    card: Card
    graph: bytes
    format: str = "onnx"
    weights: bytes = b""


# ---------------------------------------------------------------- finding


def shipped() -> dict[str, Path]:
    """The models inside the package: name -> path."""
    return {path.stem: path for path in sorted(WEIGHTS.glob(f"*{SUFFIX}"))}


def is_shipped(model: str | Path) -> bool:
    """Whether this is the name of a model inside the package, also a former one."""
    return str(model) in shipped() or FORMER_NAMES.get(str(model)) in shipped()


def find(model: str | Path) -> Path:
    """The path of a model, given the name of a shipped one or a path; a UsageError if there is none."""
    models = shipped()
    if str(model) in models:
        return models[str(model)]
    if is_shipped(model):
        name = FORMER_NAMES[str(model)]
        _note_new_name(str(model), name)
        return models[name]
    path = Path(model)
    if not path.is_file():
        raise UsageError(
            f"{model}: no such model file, and no shipped model of that name (shipped: "
            f"{', '.join(models) or 'none'}; {DEFAULT_MODEL} is the default)"
        )
    return path


@lru_cache(maxsize=len(FORMER_NAMES))
def _note_new_name(former: str, name: str) -> None:
    """Say it once a process."""
    log.warning("squeezedet: the model %s is called %s since version 0.2", former, name)


def is_bundle(path: Path) -> bool:
    """Whether the file begins as a bundle or a ``.sqz`` does; False if it cannot be read."""
    try:
        with open_regular(path, MAX_FILE_BYTES, error=ModelError) as file:
            head = file.read(len(legacy.MAGIC))
    except (ModelError, OSError):
        return False
    return head == legacy.MAGIC or head.startswith(b"PK\x03\x04")


# ---------------------------------------------------------------- reading


def read_card(path: Path) -> Card:
    """Only the card of a model file: quick, without an engine; a ModelError if the file is damaged or has none."""
    if exported.is_exported(path):
        return exported.read_card(path)
    content = _content(path)
    if content.startswith(legacy.MAGIC):
        text = legacy.read_sqz(content, str(path), card_only=True).card
    else:
        text = _members(content, path, CARD)[CARD]
    return Card.from_json(text, str(path))


def read(path: Path, *, trust_model: bool = False, trusted_keys: Collection[str] | None = None) -> Bundle:
    """Read a model file and check it.

    Args:
        path: of the file.
        trust_model: open also formats that are programs (OpenVINO, ncnn) and that
            this user's own exports did not write.
        trusted_keys: take only a bundle that one of these public keys has signed, see
            ``signature.read_keys``.

    Raises:
        ModelError: the file is not signed as it must be, is damaged or incomplete, its graph has
            another checksum or holds what no detector does, or it is a program that is not
            trusted.
    """
    if exported.is_exported(path):
        if trusted_keys is not None:
            raise ModelError(f"{path}: is no bundle; only a bundle can be signed")
        model = Bundle(*exported.read(path, trust_model=trust_model))
    else:
        model = _read_bundle(path, trusted_keys)
    if model.format == "onnx":
        check_graph(model.graph, str(path))
    return model


def _read_bundle(path: Path, trusted_keys: Collection[str] | None) -> Bundle:
    content = _content(path)
    if trusted_keys is not None:
        signature.check_signature(all_members(content, path), trusted_keys, str(path))
    if content.startswith(legacy.MAGIC):
        old = legacy.read_sqz(content, str(path))
        parts = coded_graph(old.template, old.rows, old.coded, str(path))
        return _decoded(Card.from_json(old.card, str(path)), parts, path)
    members = _members(content, path, CARD, GRAPH, TEMPLATE, INDEX, CODED)
    card = Card.from_json(members[CARD], str(path))
    if GRAPH in members:
        return Bundle(card, _checked(members[GRAPH], card, path))
    try:
        rows = read_index(members[INDEX])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: {INDEX} is damaged: {error}") from error
    parts = coded_graph(members[TEMPLATE], rows, members[CODED], str(path))
    return _decoded(card, parts, path)


def _decoded(card: Card, parts: CodedGraph, path: Path) -> Bundle:
    graph = decode_graph(parts, str(path)) if parts.tensors else parts.template
    return Bundle(card, _checked(graph, card, path))


def _checked(graph: bytes, card: Card, path: Path) -> bytes:
    if hashlib.sha256(graph).hexdigest() != card.graph_sha256:
        raise ModelError(f"{path}: the graph's checksum is not the card's: the file was changed or damaged")
    return graph


def _content(path: Path) -> bytes:
    return read_regular(path, MAX_FILE_BYTES, what="model", error=ModelError)


def _members(content: bytes, path: Path, *names: str) -> dict[str, bytes]:
    """The members of these names: the card and, if it is among them, either kind of graph."""
    with _archive(content, path) as archive:
        there = set(archive.namelist())
        coded = GRAPH not in there and TEMPLATE in there
        needed = (CARD, TEMPLATE, INDEX, CODED) if coded else (CARD, GRAPH)
        return {name: _member(archive, name, path, MAX_BYTES, STORED) for name in needed if name in names}


def all_members(
    content: bytes, path: Path, limits: Mapping[str, int] = MAX_BYTES, stored: Collection[str] = STORED
) -> dict[str, bytes]:
    """Every member of a bundle, or of another archive of ours.

    Args:
        content: of the file.
        path: of the file, for errors.
        limits: most bytes of each member that there may be; those of a bundle by default.
        stored: those that may not be compressed.

    Raises:
        ModelError: one is unknown, too large or there twice, or the file is damaged.
    """
    with _archive(content, path) as archive:
        names = archive.namelist()
        if unknown := [name for name in names if name not in limits]:
            raise ModelError(f"{path}: has an unknown part {unknown[0]!r:.80}")
        if len(set(names)) < len(names):
            raise ModelError(f"{path}: has two parts of one name")
        return {name: _member(archive, name, path, limits, stored) for name in names}


@contextmanager
def _archive(content: bytes, path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield archive
    except ModelError:
        raise
    except Exception as error:
        # The bytes come from anywhere, and what zipfile raises on damaged ones is open: BadZipFile,
        # NotImplementedError (version), RuntimeError (encrypted), UnicodeDecodeError (a name), ...
        raise ModelError(
            f"{path}: not a model bundle or package, or a truncated or damaged one ({error or type(error).__name__})"
        ) from error


def _member(
    archive: zipfile.ZipFile, name: str, path: Path, limits: Mapping[str, int], stored: Collection[str]
) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise ModelError(f"{path}: the bundle has no {name}") from error
    allowed = (zipfile.ZIP_STORED,) if name in stored else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if info.compress_type not in allowed:
        raise ModelError(f"{path}: {name} is compressed; it must be stored as it is")
    if info.file_size > limits[name]:
        raise ModelError(f"{path}: {name} is larger than {limits[name]} bytes")
    with archive.open(info) as file:  # not `read`, which inflates whatever comes
        content = file.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise ModelError(f"{path}: {name} has not the {info.file_size} bytes that are declared")
    return content


# ---------------------------------------------------------------- writing


def write(path: Path, bundle: Bundle, coded: Mapping[str, bytes] | None = None) -> None:
    """Write a bundle, whole or not at all; the same one gives the same bytes.

    Args:
        path: of the file.
        bundle: the model.
        coded: name of an initializer -> its numbers, coded by ``coding.tensor.encode_tensor``; without
            any the graph is stored as it is, or deflated.

    Raises:
        UsageError: the model has no ONNX graph.
        ModelError: the graph does not hold the numbers of a coded tensor.
        SqueezeDetError: the place cannot be written.
    """
    if bundle.format != "onnx":
        raise UsageError(f"{path}: a bundle holds an ONNX graph, and this model is {bundle.format}")
    with replacing(path) as temporary:
        temporary.write_bytes(to_bytes(bundle, coded))


def to_bytes(bundle: Bundle, coded: Mapping[str, bytes] | None = None) -> bytes:
    """The content of a bundle's file; see ``write``."""
    members = {CARD: bundle.card.to_json().encode()}
    if coded or len(zlib.compress(bundle.graph)) < WORTH_DEFLATING * len(bundle.graph):
        parts = encode_graph(bundle.graph, coded or {})
        members |= {TEMPLATE: parts.template, INDEX: parts.index(), CODED: parts.coded}
    else:
        members[GRAPH] = bundle.graph
    return _zip(members)


def sign(path: Path, private_key: Path, target: Path) -> None:
    """Write a signed copy of a bundle to ``target``, which may be ``path``, whole or not at all.

    Raises:
        UsageError: the private key cannot be used.
        ModelError: the file is no bundle, or is damaged.
        SqueezeDetError: the place cannot be written.
    """
    read(path)  # what is signed is a model
    members = all_members(_content(path), path)
    members[signature.MEMBER] = signature.sign(members, private_key)
    with replacing(target) as temporary:
        temporary.write_bytes(_zip(members))


def plain_parts(path: Path) -> dict[str, bytes]:
    """Card and graph of a bundle, nothing coded: ``plain_bytes`` makes one file of them; errors as ``read``."""
    model = read(path)
    if exported.is_exported(path):
        raise ModelError(f"{path}: is no bundle")
    content = _content(path)
    old = content.startswith(legacy.MAGIC)
    card = model.card.to_json().encode() if old else _members(content, path, CARD)[CARD]
    return {CARD: card, GRAPH: model.graph}


def plain_bytes(parts: Mapping[str, bytes]) -> bytes:
    """The bundle of these parts, nothing compressed: the same bytes with every version of zlib."""
    return zip_members({name: parts[name] for name in (CARD, GRAPH)})


def _zip(members: Mapping[str, bytes]) -> bytes:
    return zip_members(members, members.keys() - STORED if TEMPLATE in members else ())


def zip_members(members: Mapping[str, bytes], deflated: Collection[str] = ()) -> bytes:
    """An archive; the same members give the same bytes, with one version of zlib those that are deflated, too."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compresslevel=9) as archive:
        for name, part in members.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3  # also on Windows
            info.compress_type = zipfile.ZIP_DEFLATED if name in deflated else zipfile.ZIP_STORED
            archive.writestr(info, part)
    return content.getvalue()
