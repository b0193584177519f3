"""The user's cache folder, and the decoded graphs in it.

Decoding coded weights takes a tenth of a second or more, so the graph is kept, by the checksum of
the file that it came from; what is in the cache is believed only if it has the card's checksum.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from squeezedet.errors import SqueezeDetError
from squeezedet.files import read_regular, write_atomic

MAX_CACHED = 8
"""Graphs in the cache folder; SqueezeDet's takes 4 MB."""
CACHED = re.compile(r"[0-9a-f]{64}\.onnx")
"""A name in the cache folder that is ours."""


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


def cached_graph(digest: str, max_bytes: int) -> bytes:
    """The graph decoded from the file of this SHA-256; empty if there is none.

    The caller compares the checksum of the graph, and calls ``keep_graph`` if it is another.
    """
    folder = cache_folder()
    if folder is None:
        return b""
    path = folder / f"{digest}.onnx"
    try:
        content = read_regular(path, max_bytes)
        os.utime(path)  # it was used now
    except SqueezeDetError:
        return b""
    except OSError:
        return content  # another's folder, or removed by another process
    return content


def keep_graph(digest: str, graph: bytes) -> None:
    """Keep a decoded graph; a full or read-only home only means that it is decoded again."""
    folder = cache_folder()
    if folder is None:
        return
    try:
        write_atomic(folder / f"{digest}.onnx", graph)
    except SqueezeDetError:
        return
    _remove_old(folder)


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
