"""From what a user names to images: files, folders, globs, addresses, standard input."""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from squeezedet.errors import DataError, UsageError
from squeezedet.media.images import MAX_PIXELS, SUFFIXES, Frame, read_image, read_limited

STDIN = "-"
STDIN_IN_WORDS = "standard input"


@dataclass(frozen=True, slots=True)
class Failure:
    """One source that gave no image.

    Attributes:
        name: the source as the user knows it.
        error: why; its message names the source.
    """

    name: str
    error: DataError


@dataclass(frozen=True, slots=True)
class Source:
    """One image that was named and not yet read.

    Attributes:
        name: path, address, or "-" for standard input.
        kind: how to read it.
    """

    name: str
    kind: Literal["file", "url", "stdin"]


def locate(sources: Sequence[str], *, recursive: bool = False) -> list[Source | Failure]:
    """List the images behind the names, in their order, without opening any.

    A folder stands for its images (known suffixes, hidden files left out, sorted by
    name); a pattern such as ``'trip/*.jpg'`` that is not itself a file stands for the
    images it matches; ``http://`` and ``https://`` are fetched; ``-`` is standard input.
    What does not exist or holds no image becomes a ``Failure``, so that the others go on.

    Args:
        sources: the names.
        recursive: look into the folders of a folder, too.

    Raises:
        UsageError: standard input is named more than once.
    """
    if sources.count(STDIN) > 1:
        raise UsageError("standard input holds one image: name - only once")
    return [item for name in sources for item in _locate_one(name, recursive)]


def frames(
    sources: Sequence[Source | Failure], *, max_pixels: int = MAX_PIXELS
) -> Iterator[Frame | Failure]:
    """Read the located images one after the other, each as a Frame or a Failure."""
    for source in sources:
        if isinstance(source, Failure):
            yield source
            continue
        try:
            yield _read(source, max_pixels)
        except DataError as error:
            yield Failure(source.name, error)


def _locate_one(name: str, recursive: bool) -> list[Source | Failure]:
    if name == STDIN:
        return [Source(name, "stdin")]
    if not name:  # an empty variable of the shell; as a path it would be the current folder
        return [_failure("''", "an empty name is no image")]
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", name)
    if scheme:
        return [_address(name, scheme[1].lower())]
    try:
        return _paths(name, recursive)
    except (OSError, ValueError) as error:  # no permission; a name too long or with a null byte
        reason = getattr(error, "strerror", None) or error
        return [_failure(name, f"cannot be read ({reason})")]


def _address(name: str, scheme: str) -> Source | Failure:
    user, at, _ = re.split("[/?#]", name.partition("://")[2], maxsplit=1)[0].rpartition("@")
    if at:
        shown = name.replace(f"{user}@", "", 1)  # a password is never repeated
        return _failure(
            shown,
            "an address with a user name or password is not fetched; pipe the image in "
            "instead (curl ... | squeezedet detect -)",
        )
    if scheme in ("http", "https"):
        return Source(name, "url")
    return _failure(name, f"only http and https addresses can be fetched, not {scheme}")


def _paths(name: str, recursive: bool) -> list[Source | Failure]:
    path = Path(name)
    if path.is_dir():
        return _folder(path, recursive)
    if glob.has_magic(name) and not path.exists():
        return _pattern(name)
    # A file that is missing says so when it is read: one place, one sentence.
    return [Source(name, "file")]


def _folder(folder: Path, recursive: bool) -> list[Source | Failure]:
    found = folder.rglob("*") if recursive else folder.iterdir()
    images = sorted(p for p in found if _is_image(p) and not _is_hidden(p.relative_to(folder)))
    if images:
        return [Source(str(path), "file") for path in images]
    known = ", ".join(s.removeprefix(".") for s in SUFFIXES)
    deeper = "" if recursive else "; --recursive looks into its folders, too"
    return [_failure(str(folder), f"the folder has no images ({known}){deeper}")]


def _pattern(pattern: str) -> list[Source | Failure]:
    # Not Path.glob: it wants a folder and a relative pattern, a shell's pattern may be absolute.
    matches = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207
    images = sorted(path for path in matches if _is_image(path))
    if images:
        return [Source(str(path), "file") for path in images]
    return [_failure(pattern, "the pattern matches no image")]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _failure(name: str, sentence: str) -> Failure:
    return Failure(name, DataError(f"{name}: {sentence}"))


def _read(source: Source, max_pixels: int) -> Frame:
    if source.kind == "file":
        return read_image(Path(source.name), source.name, max_pixels)
    if source.kind == "stdin":
        content = read_limited(sys.stdin.buffer, STDIN_IN_WORDS)
        return replace(read_image(content, STDIN_IN_WORDS, max_pixels), name=source.name)
    from squeezedet.media.download import fetch  # urllib is slow to import

    content, content_type = fetch(source.name)
    try:
        return read_image(content, source.name, max_pixels)
    except DataError as error:
        if content_type.startswith("text/"):
            raise DataError(
                f"{source.name}: the server sent {content_type}, not an image"
            ) from error
        raise
