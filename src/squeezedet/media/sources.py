"""From what a user names to images: files, folders, globs, videos, addresses, standard input."""

from __future__ import annotations

import glob
import http.client
import os
import re
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from squeezedet.errors import DataError, UsageError
from squeezedet.files import IMAGE_SUFFIXES, too_many_bytes
from squeezedet.media.images import MAX_BYTES, MAX_PIXELS, Frame, read_image
from squeezedet.media.kinds import (
    LIVE_SCHEMES,
    LIVE_SUFFIXES,
    PLAYLIST_SUFFIXES,
    VIDEO_SUFFIXES,
    is_camera,
    is_numbered,
    is_video,
    numbered,
    split_address,
    without_password,
)
from squeezedet.text import counted
from squeezedet.version import __version__

if TYPE_CHECKING:
    from squeezedet.media.video import Reconnect

# ----------------------------------------------------------------- download

SAFE = "/%:=&~+!$,;'@()*[]"
CHUNK_BYTES = 1 << 16


def fetch(url: str, *, max_bytes: int = MAX_BYTES, timeout_s: float = 10.0, total_s: float = 30.0) -> tuple[bytes, str]:
    """The body of the answer, and the content type that the server claims for it.

    Args:
        url: http or https; redirections to either are followed, to anything else not.
        max_bytes: a longer body is given up as soon as that is known.
        timeout_s: longest silence of the server.
        total_s: longest time for everything, against a server that trickles.
    """
    outcome: list[tuple[bytes, str] | BaseException] = []
    end = time.monotonic() + total_s

    def work() -> None:
        try:
            outcome.append(_fetch(url, max_bytes, timeout_s, end))
        except BaseException as error:
            outcome.append(error)

    # The limits of a socket are for one silence; name service, headers and redirections can
    # add up to any time. Who waits beside it can leave; the thread ends with its connection.
    thread = threading.Thread(target=work, name="download", daemon=True)
    thread.start()
    thread.join(total_s)
    if not outcome or isinstance(outcome[0], _TooSlowError):
        raise DataError(f"{without_password(url)}: not complete after {total_s:g} seconds")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


class _TooSlowError(Exception):
    """The time is over."""


def _fetch(url: str, max_bytes: int, timeout_s: float, end: float) -> tuple[bytes, str]:
    shown = without_password(url)
    try:
        request = urllib.request.Request(  # noqa: S310 - the opener knows http and https only
            _ascii(url), headers={"User-Agent": f"squeezedet/{__version__}", "Accept": "image/*,*/*"}
        )
        with _opener().open(request, timeout=timeout_s) as answer:
            _refuse_video(answer.headers.get_content_type(), shown)
            return _body(answer, shown, max_bytes, end), answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        error.close()
        if str(error.reason).startswith(urllib.request.HTTPRedirectHandler.inf_msg):
            raise DataError(f"{shown}: the server sends the request round in a circle") from error
        reason = " ".join(str(error.reason).split())  # urllib's own reasons have several lines
        raise DataError(f"{shown}: the server answers {error.code} {reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{shown}: {_reason(error, timeout_s)}") from error


def _opener() -> urllib.request.OpenerDirector:
    """An opener without the ftp, file and data schemes that urllib would follow a redirect to."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _ascii(url: str) -> str:
    """The address as it goes over the wire: what a browser's address line shows, encoded."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("the address names no host")
    host = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    path, query = quote(parts.path, SAFE), quote(parts.query, SAFE + "?")
    return f"{parts.scheme.lower()}://{host}{path or '/'}" + (f"?{query}" if query else "")


def _refuse_video(content_type: str, url: str) -> None:
    """Say at once what the limits of time and size would say late."""
    if content_type == "multipart/x-mixed-replace":  # Motion JPEG
        raise DataError(f"{url}: the server sends a live video: read it with `live`")
    if content_type.startswith("video/"):
        raise DataError(f"{url}: the server sends a video; save it to a file first and detect in that file")


def _body(answer: Any, url: str, max_bytes: int, end: float) -> bytes:
    announced = answer.headers.get("Content-Length", "")
    size = int(announced) if announced.isdecimal() else None
    if size is not None and size > max_bytes:
        raise DataError(f"{url}: {too_many_bytes(max_bytes)}")
    content = bytearray()
    # read1 returns what is there: a server that trickles cannot hold us inside one call.
    while chunk := answer.read1(CHUNK_BYTES):
        content += chunk
        if len(content) > max_bytes:
            raise DataError(f"{url}: {too_many_bytes(max_bytes)}")
        if time.monotonic() > end:
            raise _TooSlowError
    if size is not None and len(content) < size:
        raise DataError(f"{url}: the connection broke off after {len(content)} of {size} bytes")
    return bytes(content)


def _reason(error: Exception, timeout_s: float) -> str:
    inner = getattr(error, "reason", error)
    cause = inner if isinstance(inner, Exception) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {timeout_s:g} seconds"
    if isinstance(cause, socket.gaierror):
        return "no such host, or no network"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted ({cause.verify_message})"
    if isinstance(cause, OSError) and cause.strerror:
        return f"cannot be reached ({cause.strerror})"
    if isinstance(cause, http.client.HTTPException):
        return f"the server does not speak HTTP ({type(cause).__name__})"
    return str(inner) or type(cause).__name__


# ----------------------------------------------------------------- names and frames

STDIN = "-"
OTHER_IMAGE_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".jxr", ".tga", ".exr", ".hdr", ".psd"),
    *(".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".svg", ".eps"),
)
"""Of images that are not read."""
STDIN_IN_WORDS = "standard input"


@dataclass(frozen=True, slots=True)
class Failure:
    """One source that gave no image."""

    name: str
    error: DataError  # its message names the source


@dataclass(frozen=True, slots=True)
class MediaSource:
    """One image or video that was named and not yet read."""

    name: str  # path, address, "-" for standard input, or a camera (``0``, ``/dev/video0``)
    kind: Literal["file", "url", "stdin", "video", "live"]  # the last two are videos
    notes: tuple[str, ...] = ()


def locate(sources: Sequence[str], *, recursive: bool = False, live: bool = False) -> list[MediaSource | Failure]:
    """List the images and videos behind the names, in their order, without decoding any.

    A folder stands for its images (known suffixes, hidden files left out, sorted by
    name); a pattern such as ``'trip/*.jpg'`` that is not itself a file stands for the
    images it matches, and one such as ``trip/%06d.jpg`` for those that have numbers, in their
    order; ``http://`` and ``https://`` are fetched; ``-`` is standard input. A file is a video by
    its suffix or its first bytes; ``rtsp://`` and its like and cameras are live.
    What does not exist or holds no image becomes a ``Failure``, so that the others go on.

    With ``recursive`` the folders of a folder are looked into, with ``live`` every name is a live video.

    Raises:
        UsageError: standard input is named more than once.
    """
    if sources.count(STDIN) > 1:
        raise UsageError("standard input holds one image: name - only once")
    if live:
        return [MediaSource(name, "live") for name in sources]
    return [item for name in sources for item in _locate_one(name, recursive)]


def frames(
    sources: Sequence[MediaSource | Failure], *, max_pixels: int = MAX_PIXELS, reconnect: Reconnect | None = None
) -> Generator[Frame | Failure, None, None]:
    """Read the located images one after the other, each as a Frame or a Failure.

    A video gives a Frame after the other, and then a Failure if not all of it could be read.
    A live one that breaks off is opened again as ``reconnect`` says.

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
                yield from read_video(source.name, live=live, max_pixels=max_pixels, reconnect=reconnect)
            else:
                yield _read(source, max_pixels)
        except DataError as error:
            yield Failure(without_password(source.name), error)


def _locate_one(name: str, recursive: bool) -> list[MediaSource | Failure]:
    if name == STDIN:
        return [MediaSource(name, "stdin")]
    if not name:  # an empty variable of the shell; as a path it would be the current folder
        return [_failure("''", "an empty name is no image")]
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", name)
    if scheme:
        return [_address(name, scheme[1].lower())]
    if is_camera(name):
        return [MediaSource(name, "live")]
    try:
        return _paths(name, recursive)
    except (OSError, ValueError) as error:  # no permission; a name too long or with a null byte
        reason = getattr(error, "strerror", None) or error
        return [_failure(name, f"cannot be read ({reason})")]


def _address(name: str, scheme: str) -> MediaSource | Failure:
    _, user, rest = split_address(name)
    suffix = PurePosixPath(re.split("[?#]", rest, maxsplit=1)[0]).suffix.lower()
    web = scheme in ("http", "https")
    if scheme in LIVE_SCHEMES or (web and suffix in LIVE_SUFFIXES):
        return MediaSource(name, "live")
    if web and suffix in (*VIDEO_SUFFIXES, *PLAYLIST_SUFFIXES):
        return MediaSource(name, "video")
    if user:
        return _failure(
            without_password(name),
            "an image behind a user name or password is not fetched; pipe it in (curl ... | squeezedet detect -)",
        )
    if not web:
        return _failure(without_password(name), f"only http and https addresses can be fetched, not {scheme}")
    return MediaSource(name, "url")


def _paths(name: str, recursive: bool) -> list[MediaSource | Failure]:
    path = Path(name)
    if path.is_dir():
        return _folder(path, recursive)
    if is_numbered(name) and not re.search("[*?]", path.name if path.parent.is_dir() else name):
        files = [MediaSource(str(file), "file") for file in numbered(name)]
        return list(files) or [_failure(name, "the pattern matches no image")]
    if glob.has_magic(name) and not path.exists():
        return _pattern(name)
    if is_video(path):
        return [MediaSource(name, "video")]
    # A file that is missing says so when it is read: one place, one sentence.
    return [MediaSource(name, "file")]


def _folder(folder: Path, recursive: bool) -> list[MediaSource | Failure]:
    unreadable: list[Failure] = []

    def complain(error: OSError) -> None:
        unreadable.append(_failure(str(error.filename), f"cannot be read ({error.strerror})"))

    files = list(walk_files(folder, complain, recursive=recursive))
    images = sorted(path for path in files if _is_image(path))
    if images:
        notes = _left_out(folder, files)
        first, *others = (MediaSource(str(path), "file") for path in images)
        return [replace(first, notes=notes), *others, *unreadable]
    if unreadable:
        return list(unreadable)
    known = ", ".join(s.removeprefix(".") for s in IMAGE_SUFFIXES)
    deeper = "" if recursive else "; `recursive` looks into its folders, too"
    return [_failure(str(folder), f"the folder has no images ({known}){deeper}")]


def walk_files(folder: Path | str, complain: Callable[[OSError], None], *, recursive: bool = True) -> Iterator[Path]:
    """The files of a folder and of its folders, sorted, hidden ones left out; links are followed."""
    entered = {os.path.realpath(folder)}  # links may lead in circles: each folder once
    for place, folders, names in os.walk(folder, onerror=complain, followlinks=True):
        inner = {name: os.path.realpath(Path(place, name)) for name in sorted(folders) if not name.startswith(".")}
        folders[:] = [name for name, real in inner.items() if recursive and real not in entered]
        entered.update(inner[name] for name in folders)
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _left_out(folder: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """A note of the pictures and videos in a folder that are not read."""
    suffixes = [path.suffix.lower() for path in files]
    left = [s for s in suffixes if s in (*OTHER_IMAGE_SUFFIXES, *VIDEO_SUFFIXES)]
    if not left:
        return ()
    kinds = ", ".join(sorted(set(left)))
    return (f"{folder}: {counted(len(left), 'file')} left out ({kinds})",)


def _pattern(pattern: str) -> list[MediaSource | Failure]:
    files = _matches(pattern)
    images = [MediaSource(str(path), "file") for path in files if _is_image(path)]
    videos = [MediaSource(str(p), "video") for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    if images or videos:
        return [*(images or videos)]
    bracket = "; a bracket that means itself is written [[]" if "[" in pattern else ""
    return [_failure(pattern, f"the pattern matches no image{bracket}")]


def _matches(pattern: str) -> list[Path]:
    """The files of a pattern; a part of it with brackets is first a name that holds them, then a pattern."""
    # Not Path.glob: it wants a folder and a relative pattern, a shell's pattern may be absolute.
    matches = partial(glob.iglob, recursive=True)
    place = Path()
    for part in Path(pattern).parts:
        meanings = (glob.escape(part), part, part.replace("[", "[[]")) if "[" in part else (part,)
        place /= next((meant for meant in meanings if any(matches(str(place / meant)))), part)
    return sorted(path for path in map(Path, matches(str(place))) if path.is_file())


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def _failure(name: str, sentence: str) -> Failure:
    return Failure(name, DataError(f"{name}: {sentence}"))


def _read(source: MediaSource, max_pixels: int) -> Frame:
    if source.kind == "file":
        frame = read_image(Path(source.name), source.name, max_pixels)
        return replace(frame, notes=(*source.notes, *frame.notes))
    if source.kind == "stdin":
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DataError(f"{STDIN_IN_WORDS}: {too_many_bytes(MAX_BYTES)}; save it to a file first")
        return replace(read_image(content, STDIN_IN_WORDS, max_pixels), name=source.name)
    shown = without_password(source.name)
    content, content_type = fetch(source.name)
    try:
        return read_image(content, shown, max_pixels)
    except DataError as error:
        if content_type.startswith("text/"):
            raise DataError(f"{shown}: the server sent {content_type}, not an image") from error
        raise
