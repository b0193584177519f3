"""From what a user names to images: files, folders, globs, videos, addresses, standard input."""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from squeezedet.errors import DataError, UsageError
from squeezedet.media.images import MAX_PIXELS, SUFFIXES, Frame, read_image, read_limited
from squeezedet.media.kinds import (
    LIVE_SCHEMES,
    LIVE_SUFFIXES,
    VIDEO_SUFFIXES,
    is_camera,
    is_numbered,
    is_video,
    numbered,
    without_password,
)

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
    """One image or video that was named and not yet read.

    Attributes:
        name: path, address, "-" for standard input, or a camera (``0``, ``/dev/video0``).
        kind: how to read it; the last two are videos.
    """

    name: str
    kind: Literal["file", "url", "stdin", "video", "live"]


def locate(
    sources: Sequence[str], *, recursive: bool = False, live: bool = False
) -> list[Source | Failure]:
    """List the images and videos behind the names, in their order, without decoding any.

    A folder stands for its images (known suffixes, hidden files left out, sorted by
    name); a pattern such as ``'trip/*.jpg'`` that is not itself a file stands for the
    images it matches, and one such as ``trip/%06d.jpg`` for those that have numbers, in their
    order; ``http://`` and ``https://`` are fetched; ``-`` is standard input. A file is a video by
    its suffix or its first bytes; ``rtsp://`` and its like and cameras are live.
    What does not exist or holds no image becomes a ``Failure``, so that the others go on.

    Args:
        sources: the names.
        recursive: look into the folders of a folder, too.
        live: every name is a live video, whatever it looks like.

    Raises:
        UsageError: standard input is named more than once.
    """
    if sources.count(STDIN) > 1:
        raise UsageError("standard input holds one image: name - only once")
    if live:
        return [Source(name, "live") for name in sources]
    return [item for name in sources for item in _locate_one(name, recursive)]


def frames(
    sources: Sequence[Source | Failure], *, max_pixels: int = MAX_PIXELS
) -> Generator[Frame | Failure, None, None]:
    """Read the located images one after the other, each as a Frame or a Failure.

    A video gives a Frame after the other, and then a Failure if not all of it could be read.

    Raises:
        MissingExtraError: there is a video, and PyAV is not installed.
    """
    for source in sources:
        if isinstance(source, Failure):
            yield source
            continue
        try:
            if source.kind in ("video", "live"):
                from squeezedet.media.video import read_video

                live = source.kind == "live"
                yield from read_video(source.name, live=live, max_pixels=max_pixels)
            else:
                yield _read(source, max_pixels)
        except DataError as error:
            yield Failure(without_password(source.name), error)


def _locate_one(name: str, recursive: bool) -> list[Source | Failure]:
    if name == STDIN:
        return [Source(name, "stdin")]
    if not name:  # an empty variable of the shell; as a path it would be the current folder
        return [_failure("''", "an empty name is no image")]
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", name)
    if scheme:
        return [_address(name, scheme[1].lower())]
    if is_camera(name):
        return [Source(name, "live")]
    try:
        return _paths(name, recursive)
    except (OSError, ValueError) as error:  # no permission; a name too long or with a null byte
        reason = getattr(error, "strerror", None) or error
        return [_failure(name, f"cannot be read ({reason})")]


def _address(name: str, scheme: str) -> Source | Failure:
    suffix = PurePosixPath(re.split("[?#]", name, maxsplit=1)[0]).suffix.lower()
    picture = scheme in ("http", "https") and suffix in LIVE_SUFFIXES
    if scheme in LIVE_SCHEMES or picture:  # cameras ask for passwords; no message repeats them
        return Source(name, "live")
    user, at, _ = re.split("[/?#]", name.partition("://")[2], maxsplit=1)[0].rpartition("@")
    if at:
        shown = name.replace(f"{user}@", "", 1)  # a password is never repeated
        return _failure(
            shown,
            "an address with a user name or password is not fetched; pipe the image in "
            "instead (curl ... | squeezedet detect -)",
        )
    if scheme not in ("http", "https"):
        return _failure(name, f"only http and https addresses can be fetched, not {scheme}")
    return Source(name, "video" if suffix in VIDEO_SUFFIXES else "url")


def _paths(name: str, recursive: bool) -> list[Source | Failure]:
    path = Path(name)
    if path.is_dir():
        return _folder(path, recursive)
    if glob.has_magic(name) and not path.exists():
        return _pattern(name)
    if is_numbered(name):
        files = [Source(str(file), "file") for file in numbered(name)]
        return list(files) or [_failure(name, "the pattern matches no image")]
    if is_video(path):
        return [Source(name, "video")]
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
    files = sorted(path for path in matches if not path.is_dir())
    images = [Source(str(path), "file") for path in files if _is_image(path)]
    videos = [Source(str(p), "video") for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    return [*(images or videos)] or [_failure(pattern, "the pattern matches no image")]


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
