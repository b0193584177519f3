"""Files that appear whole or not at all, and names that do not collide."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TextIO
from urllib.parse import unquote, urlsplit

from squeezedet.errors import UsageError
from squeezedet.files import one_sentence, replacing
from squeezedet.media.images import SUFFIXES


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` when the block ends well.

    What is there and is no regular file (a pipe, ``/dev/null``) is written to directly.

    Raises:
        SqueezeDetError: the place cannot be written.
    """
    path = path.resolve()  # a link stays a link, and what it points to is replaced
    with one_sentence(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            yield path
        else:
            with replacing(path) as temporary:
                yield temporary


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    r"""A UTF-8 text file that appears when it is whole.

    Names that are no text (bytes of another encoding in a file name) come out as
    ``\udcXX``, which JSON reads back as the same name.
    """
    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        yield file


@contextmanager
def growing_file(path: Path) -> Iterator[TextIO]:
    """A UTF-8 text file as ``text_file``, but there from the start, for who follows it.

    Raises:
        SqueezeDetError: the place cannot be written.
    """
    with (
        one_sentence(path),
        path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        yield file


def check_file(path: Path) -> None:
    """Find out before the work whether a file of results can have this name.

    Raises:
        UsageError: it is a folder, has the name of an image, or its folder does not exist.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    if path.suffix.lower() in SUFFIXES:
        raise UsageError(f"{path}: has the name of an image; it would be replaced")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")


def make_folder(folder: Path) -> Path:
    """The folder, made with its parents if need be.

    Raises:
        UsageError: it is a file, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "is a file" if folder.is_file() else error.strerror or error
        raise UsageError(f"{folder}: cannot be made a folder ({reason})") from error
    return folder


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
