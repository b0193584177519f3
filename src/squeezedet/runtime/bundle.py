"""Bundle: one file with everything needed to detect.

A zip archive (stored, not deflated) of ``card.json`` and ``model.onnx``. Nothing
in it is executed but the graph's operators, and the graph must have the checksum
that the card names.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from squeezedet.errors import ModelError, UsageError
from squeezedet.files import replacing
from squeezedet.runtime.card import Card

SUFFIX = ".bundle"
CARD, GRAPH = "card.json", "model.onnx"
MAX_CARD_BYTES = 1_000_000
MAX_GRAPH_BYTES = 1_000_000_000
WEIGHTS = Path(__file__).resolve().parents[1] / "weights"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A model in memory: its card, and its graph as ONNX bytes."""

    card: Card
    graph: bytes


def shipped() -> dict[str, Path]:
    """The models inside the package: name -> path."""
    return {path.stem: path for path in sorted(WEIGHTS.glob(f"*{SUFFIX}"))}


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
    """Only the card of a bundle: quick, and without an engine."""
    with _open(path) as archive:
        return Card.from_json(_member(archive, CARD, MAX_CARD_BYTES, path), str(path))


def read(path: Path) -> Bundle:
    """Read a bundle and check it.

    Raises:
        ModelError: the file is damaged, incomplete, or its graph has another checksum.
    """
    with _open(path) as archive:
        card = Card.from_json(_member(archive, CARD, MAX_CARD_BYTES, path), str(path))
        graph = _member(archive, GRAPH, MAX_GRAPH_BYTES, path)
    digest = hashlib.sha256(graph).hexdigest()
    if digest != card.graph_sha256:
        raise ModelError(
            f"{path}: the graph's checksum is not the card's: the file was changed or damaged"
        )
    return Bundle(card, graph)


def write(path: Path, bundle: Bundle) -> None:
    """Write a bundle, whole or not at all; the same bundle gives the same bytes."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in ((CARD, bundle.card.to_json().encode()), (GRAPH, bundle.graph)):
            archive.writestr(zipfile.ZipInfo(name), content)


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise ModelError(f"{path}: not a model bundle, or a truncated one") from error


def _member(archive: zipfile.ZipFile, name: str, limit: int, path: Path) -> bytes:
    try:
        file: IO[bytes]
        with archive.open(name) as file:
            content = file.read(limit + 1)
    except KeyError as error:
        raise ModelError(f"{path}: the bundle has no {name}") from error
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{path}: {name} in the bundle is damaged: {error}") from error
    if len(content) > limit:
        raise ModelError(f"{path}: {name} is larger than {limit} bytes")
    return content
