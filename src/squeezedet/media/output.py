"""File names for results that do not collide."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit


def stem_of(name: str) -> str:
    """The name of an image without folder and suffix: ``http://x/a/b.jpg?w=9`` gives ``b``."""
    if name == "-":
        return "stdin"
    if "://" in name:
        parts = urlsplit(name)
        last = PurePosixPath(unquote(parts.path)).stem
        return _plain(last or parts.hostname or "image")
    return Path(name).stem or "image"


def _plain(stem: str) -> str:
    """A stem that came from outside, without what a file system could take for a path."""
    kept = "".join(c if c.isalnum() or c in "-_. " else "_" for c in stem).lstrip(".")
    return kept[:100] or "image"


class UniqueStems:
    """Gives each image its stem, and ``stem-2``, ``stem-3``, ... where one comes again.

    Case is ignored, as some file systems do.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._next: dict[str, int] = {}  # a video has thousands of frames of one name

    def __call__(self, name: str) -> str:
        """The stem for the image of this name; every call is another image."""
        stem = unique = stem_of(name)
        number = self._next.get(stem.casefold(), 2)
        while unique.casefold() in self._used:
            unique = f"{stem}-{number}"
            number += 1
        self._next[stem.casefold()] = number
        self._used.add(unique.casefold())
        return unique
