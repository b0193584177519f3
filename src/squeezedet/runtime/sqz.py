"""The ``.sqz`` container as a model: decoded once, then taken from the user's cache folder.

The cache is only a shortcut. A graph in it counts if it has the checksum that the container's
card names, whoever wrote it; where it is missing, damaged or cannot be written, the container
is decoded, each time if need be. So whatever another process removes is no harm, and of the
graphs only those that were used last stay.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

from squeezedet.coding import container
from squeezedet.errors import ModelError, SqueezeDetError
from squeezedet.files import write_atomic
from squeezedet.runtime.card import Card

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


def read_card(path: Path) -> Card:
    """Only the card: nothing is decoded.

    Raises:
        ModelError: the file is damaged, or has no good card.
    """
    return Card.from_json(container.read_card(_content(path), str(path)), str(path))


def read(path: Path) -> tuple[Card, bytes]:
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
