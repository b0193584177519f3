"""Bundle: one file with everything needed to detect.

A zip archive (stored, not deflated) of ``card.json`` and ``model.onnx``, or the same two
compressed in a ``.sqz`` container. Nothing in it is executed but the graph's operators, and
the graph must have the checksum that the card names. Files that were exported for other programs
are read as well, see ``native``.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from squeezedet.coding import container
from squeezedet.errors import ModelError, UsageError
from squeezedet.files import replacing
from squeezedet.runtime import native, sqz
from squeezedet.runtime.card import Card

SUFFIX = ".bundle"
SUFFIXES = (SUFFIX, container.SUFFIX)
"""Of model files; of two shipped ones with one name, the last suffix wins."""
CARD, GRAPH = "card.json", "model.onnx"
MAX_BYTES = {CARD: 1_000_000, GRAPH: native.MAX_GRAPH_BYTES}
WEIGHTS = Path(__file__).resolve().parents[1] / "weights"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A model in memory.

    Attributes:
        card: everything but the graph.
        graph: ONNX bytes; of another format what its engine reads.
        format: ``onnx``, or that of an exported file, see ``native``.
        weights: what openvino and ncnn have in a file of its own; empty otherwise.
    """

    card: Card
    graph: bytes
    format: str = "onnx"
    weights: bytes = b""


def shipped() -> dict[str, Path]:
    """The models inside the package: name -> path."""
    found = {p.stem: p for suffix in SUFFIXES for p in WEIGHTS.glob(f"*{suffix}")}
    return dict(sorted(found.items()))


def find(model: str | Path) -> Path:
    """The path of a model, given the name of a shipped one or a path.

    Raises:
        UsageError: there is no such model.
    """
    models = shipped()
    if str(model) in models:
        return models[str(model)]
    path = Path(model)
    if not path.is_file():
        raise UsageError(
            f"{model}: no such model file, and no shipped model of that name (shipped: "
            f"{', '.join(models) or 'none'})"
        )
    return path


def read_card(path: Path) -> Card:
    """Only the card of a model file: quick, and without an engine.

    Raises:
        ModelError: the file is damaged, or has no good card.
    """
    if sqz.is_container(path):
        return sqz.read_card(path)
    if native.is_native(path):
        return native.read_card(path)
    return Card.from_json(_members(path, CARD)[0], str(path))


def read(path: Path) -> Bundle:
    """Read a model file and check it.

    Raises:
        ModelError: the file is damaged, incomplete, or its graph has another checksum.
    """
    if sqz.is_container(path):
        return Bundle(*sqz.read(path))
    if native.is_native(path):
        return Bundle(*native.read(path))
    text, graph = _members(path, CARD, GRAPH)
    card = Card.from_json(text, str(path))
    digest = hashlib.sha256(graph).hexdigest()
    if digest != card.graph_sha256:
        raise ModelError(
            f"{path}: the graph's checksum is not the card's: the file was changed or damaged"
        )
    return Bundle(card, graph)


def write(path: Path, bundle: Bundle) -> None:
    """Write a bundle as a zip archive, whole or not at all; the same one gives the same bytes.

    Raises:
        UsageError: the model has no ONNX graph.
    """
    if bundle.format != "onnx":
        raise UsageError(f"{path}: a bundle holds an ONNX graph, and this model is {bundle.format}")
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in ((CARD, bundle.card.to_json().encode()), (GRAPH, bundle.graph)):
            archive.writestr(zipfile.ZipInfo(name), content)


def _members(path: Path, *names: str) -> list[bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [_member(archive, name, path) for name in names]
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model: {error.strerror or error}") from error
    except Exception as error:
        # The bytes come from anywhere, and what zipfile raises on damaged ones is open: BadZipFile,
        # NotImplementedError (version), RuntimeError (encrypted), UnicodeDecodeError (a name), ...
        raise ModelError(
            f"{path}: not a model bundle, or a truncated or damaged one "
            f"({error or type(error).__name__})"
        ) from error


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise ModelError(f"{path}: the bundle has no {name}") from error
    if info.compress_type != zipfile.ZIP_STORED:  # a small file must not become a huge one
        raise ModelError(f"{path}: {name} is compressed; a bundle stores it as it is")
    if info.file_size > MAX_BYTES[name]:
        raise ModelError(f"{path}: {name} is larger than {MAX_BYTES[name]} bytes")
    return archive.read(info)
