"""Files that appear whole or not at all, and names that do not collide."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TextIO
from urllib.parse import unquote, urlsplit

from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.files import replacing


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` when the block ends well.

    What is there and is no regular file (a pipe, ``/dev/null``) is written to directly.

    Raises:
        SqueezeDetError: the place cannot be written.
    """
    path = path.resolve()  # a link stays a link, and what it points to is replaced
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            yield path
        else:
            with replacing(path) as temporary:
                yield temporary
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SqueezeDetError(f"{path}: cannot be written ({error.strerror or error})") from error


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

    def __call__(self, name: str) -> str:
        """The stem for the image of this name; every call is another image."""
        stem = unique = stem_of(name)
        number = 2
        while unique.casefold() in self._used:
            unique = f"{stem}-{number}"
            number += 1
        self._used.add(unique.casefold())
        return unique
