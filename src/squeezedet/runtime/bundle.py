"""Bundle: one file with everything needed to detect.

A zip archive (stored, not deflated) of ``card.json`` and ``model.onnx``, or the same two
compressed in a ``.sqz`` container. Nothing in it is executed but the graph's operators, and
the graph must have the checksum that the card names. Files that were exported for other programs
are read as well, see ``native``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from squeezedet.coding import container
from squeezedet.errors import ModelError, SqueezeDetError, UsageError
from squeezedet.files import replacing, write_atomic
from squeezedet.runtime import exported
from squeezedet.runtime.card import Card

# ---- sqz: The ``.sqz`` container as a model: decoded once, then taken from the user's cache fold

MAX_CACHED = 8
"""Graphs in the cache folder; SqueezeDet's takes 4 MB."""
CACHED = re.compile(r"[0-9a-f]{64}\.onnx")
"""A name in the cache folder that is ours."""


def is_container(path: Path) -> bool:
    """Whether the file begins as a container does; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(container.MAGIC)) == container.MAGIC
    except OSError:
        return False


def read_sqz_card(path: Path) -> Card:
    """Only the card: nothing is decoded.

    Raises:
        ModelError: the file is damaged, or has no good card.
    """
    return Card.from_json(container.read_card(_content(path), str(path)), str(path))


def read_sqz(path: Path) -> tuple[Card, bytes]:
    """The card and the graph as ONNX bytes.

    Raises:
        ModelError: the file is damaged, incomplete, or its graph has another checksum.
    """
    content = _content(path)
    card = Card.from_json(container.read_card(content, str(path)), str(path))
    cached = _cached(hashlib.sha256(content).hexdigest())
    if cached is not None:
        graph = _graph_of(cached)
        if hashlib.sha256(graph).hexdigest() == card.graph_sha256:
            _touch(cached)
            return card, graph
    _, graph = container.unpack(content, str(path))
    if hashlib.sha256(graph).hexdigest() != card.graph_sha256:
        raise ModelError(
            f"{path}: the graph's checksum is not the card's: the file was changed or damaged"
        )
    if cached is not None:
        _keep(cached, graph)
    return card, graph


def cache_folder() -> Path | None:
    """Where decoded graphs are kept: by XDG, or as the platform has it; None without a home."""
    try:
        home = Path.home()
    except RuntimeError:  # no home, and no user to have one
        return None
    if sys.platform == "win32":
        return _absolute("LOCALAPPDATA", home / "AppData" / "Local") / "squeezedet" / "Cache"
    platform = home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
    return _absolute("XDG_CACHE_HOME", platform) / "squeezedet"


def _absolute(variable: str, otherwise: Path) -> Path:
    """The folder in an environment variable; a relative one does not count (XDG says so)."""
    folder = Path(os.environ.get(variable, ""))
    return folder if folder.is_absolute() else otherwise


def _cached(digest: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / f"{digest}.onnx"


def _graph_of(cached: Path) -> bytes:
    """What is in the cache; nothing if nothing is there, or nothing that can be a graph."""
    try:
        if cached.stat().st_size > container.MAX_GRAPH_BYTES:
            return b""
        return cached.read_bytes()
    except OSError:
        return b""


def _keep(cached: Path, graph: bytes) -> None:
    try:
        write_atomic(cached, graph)
    except SqueezeDetError:
        return  # a read-only or full home: the next start decodes again
    _remove_old(cached.parent)


def _touch(cached: Path) -> None:
    """Note that it was used now."""
    try:
        os.utime(cached)
    except OSError:
        return  # another's folder, or removed by another process


def _remove_old(folder: Path) -> None:
    """Leave the graphs that were used last; other files are not ours to remove."""
    try:
        ours = [path for path in folder.iterdir() if CACHED.fullmatch(path.name)]
    except OSError:
        return
    for path in sorted(ours, key=_used_at, reverse=True)[MAX_CACHED:]:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            continue  # a folder of that name, or in use on Windows


def _used_at(path: Path) -> int:
    """Time of the last use in ns; 0 if another process has just removed it."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > container.MAX_BYTES:
            raise ModelError(f"{path}: larger than {container.MAX_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model: {error.strerror or error}") from error


# ---- bundle: Bundle: one file with everything needed to detect.

SUFFIX = ".bundle"
SUFFIXES = (SUFFIX, container.SUFFIX)
"""Of model files; of two shipped ones with one name, the last suffix wins."""
CARD, GRAPH = "card.json", "model.onnx"
MAX_BYTES = {CARD: 1_000_000, GRAPH: exported.MAX_GRAPH_BYTES}
WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
FORMER_NAMES = {"squeezedet": "street", "squeezedet-int8": "street-int8", "tiny-ssd": "street-ssd"}
"""Until version 0.2 shipped models had the names of networks; these still open them."""

log = logging.getLogger(__name__)


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


def is_shipped(model: str | Path) -> bool:
    """Whether this is the name of a model inside the package, also a former one."""
    return str(model) in shipped() or FORMER_NAMES.get(str(model)) in shipped()


def find(model: str | Path) -> Path:
    """The path of a model, given the name of a shipped one or a path.

    Raises:
        UsageError: there is no such model.
    """
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
            f"{', '.join(models) or 'none'})"
        )
    return path


@lru_cache(maxsize=len(FORMER_NAMES))
def _note_new_name(former: str, name: str) -> None:
    """Say it once a process."""
    log.warning("squeezedet: the model %s is called %s since version 0.2", former, name)


def read_card(path: Path) -> Card:
    """Only the card of a model file: quick, and without an engine.

    Raises:
        ModelError: the file is damaged, or has no good card.
    """
    if is_container(path):
        return read_sqz_card(path)
    if exported.is_exported(path):
        return exported.read_card(path)
    return Card.from_json(_members(path, CARD)[0], str(path))


def read(path: Path) -> Bundle:
    """Read a model file and check it.

    Raises:
        ModelError: the file is damaged, incomplete, or its graph has another checksum.
    """
    if is_container(path):
        return Bundle(*read_sqz(path))
    if exported.is_exported(path):
        return Bundle(*exported.read(path))
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
