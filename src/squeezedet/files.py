"""Files: those from outside are opened within limits, our own appear whole or not at all."""

from __future__ import annotations

import itertools
import logging
import os
import re
import signal
import stat
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO, TextIO

from squeezedet.errors import DataError, SqueezeDetError, UsageError

try:
    import fcntl as locks
except ImportError:
    HAS_LOCKS = False  # Windows
else:
    HAS_LOCKS = True

LOG = logging.getLogger("squeezedet.files")
LOCK = ".lock"

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo"),
)
"""What image files that can be read are called; ``media.images`` reads them."""
MAX_TEXT_BYTES = 64_000_000
"""Default limit of ``read_text``."""
_OWN_PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
"""Paths of what the user hands over at this moment, such as the shell's ``<(command)``."""


# ----------------------------------------------------------------- reading


def open_regular(
    path: Path, max_bytes: int | None = None, *, what: str = "file", error: type[SqueezeDetError] = DataError
) -> BinaryIO:
    """Open a file from outside for reading: a regular one, not larger than the limit.

    A pipe, a device or a folder is refused without waiting for it, also behind a link. Only
    pipes that the user hands over by ``/dev/stdin`` or ``/dev/fd/N`` are opened.

    Args:
        path: of the file.
        max_bytes: a larger file is refused; a pipe has no size, so read it within the limit.
        what: the file is, for the sentence ("label file").
        error: class of the error, ``ModelError`` for a model.

    Raises:
        SqueezeDetError: of the class ``error``; it cannot be opened, and why.
    """
    try:
        if str(path).startswith(_OWN_PIPES):
            return path.open("rb")
        # Without O_NONBLOCK, opening a pipe waits until somebody writes to it.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0))
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise error(f"{path}: is a folder, not a {what}")
            if not stat.S_ISREG(status.st_mode):
                raise error(f"{path}: is not a regular file but a pipe, a socket or a device")
            if max_bytes is not None and status.st_size > max_bytes:
                raise error(f"{path}: {too_many_bytes(max_bytes)}")
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    except (OSError, ValueError) as cause:  # ValueError: a null byte in the path
        raise error(f"{path}: {reason(cause)}") from cause


def read_regular(path: Path, max_bytes: int, *, what: str = "file", error: type[SqueezeDetError] = DataError) -> bytes:
    """The content of a file from outside; arguments and errors as ``open_regular``."""
    with open_regular(path, max_bytes, what=what, error=error) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size)
            if more := file.read(1):  # a pipe, or a file that grew
                content += more + file.read(max_bytes - size)
        except OSError as cause:
            raise error(f"{path}: {reason(cause)}") from cause
    if len(content) > max_bytes:
        raise error(f"{path}: {too_many_bytes(max_bytes)}")
    return content


def read_text(
    path: Path, what: str = "file", *, max_bytes: int = MAX_TEXT_BYTES, error: type[SqueezeDetError] = DataError
) -> str:
    """A text file from outside, UTF-8 with or without a byte-order mark.

    Line ends are as in the file. Arguments and errors as ``open_regular``.
    """
    try:
        content = read_regular(path, max_bytes, what=what, error=error).decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error(f"{path}: the {what} is not text (UTF-8)") from cause
    return content.replace("\r\n", "\n").replace("\r", "\n")


def too_many_bytes(max_bytes: int) -> str:
    """What is said of more bytes than a limit allows."""
    return f"more than {max_bytes / 1e6:g} MB, the limit"


def reason(error: BaseException) -> str:
    """Why a file cannot be read or written, in words."""
    known: dict[type[BaseException], str] = {
        FileNotFoundError: "no such file",
        IsADirectoryError: "is a folder",
        PermissionError: "permission denied",
    }
    return known.get(type(error)) or getattr(error, "strerror", None) or str(error)


# ----------------------------------------------------------------- writing


def _umask() -> int:
    umask = os.umask(0)  # it cannot be read without being set
    os.umask(umask)
    return umask


MODE = 0o666 & ~_umask()
"""What a new file's permissions are; asked once, as setting the umask concerns every thread."""
_count = itertools.count()


@contextmanager
def replacing(path: Path, mode: int | None = None) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    The folder of ``path`` is made if need be; after an error nothing is left behind. A link
    stays a link, and what it points to is replaced. What is there and is no regular file (a
    pipe, ``/dev/null``) is written to directly. The block should do nothing but write: its
    ``OSError`` counts as one of writing. ``mode`` is that of what it replaces, unless it is given.

    Raises:
        SqueezeDetError: the place cannot be written, with the reason.
    """
    with one_sentence(path):
        target = path.resolve()
        if target.exists() and not target.is_file() and not target.is_dir():
            yield path  # not its resolved name: /dev/stdout may lead to a pipe without one
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _partial(target)
        try:
            # A name of this process alone; what lies there was left by a dead one of its number.
            temporary.unlink(missing_ok=True)
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            yield temporary
            with temporary.open("rb+") as file:  # on disk before it gets its name
                os.fsync(file.fileno())
            kept = stat.S_IMODE(target.stat().st_mode) if target.is_file() else MODE
            temporary.chmod(kept if mode is None else mode)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _partial(path: Path) -> Path:
    """``a.json`` is written as ``.a.PROCESS-NUMBER.partial.json``; a long stem is cut, as names have 255 bytes."""
    return path.with_name(f".{_short(path.stem)}.{os.getpid()}-{next(_count)}.partial{path.suffix}")


def _short(stem: str) -> str:
    """A stem of at most 150 bytes; of a longer one its beginning and its CRC-32."""
    content = os.fsencode(stem)
    if len(content) <= 150:
        return stem
    return f"{content[:120].decode(errors='ignore')}-{zlib.crc32(content):08x}"


def remove_partial(path: Path) -> None:
    """Remove what processes that were killed left when they wrote ``path``."""
    pattern = re.compile(rf"\.{re.escape(_short(path.stem))}\.(\d+)-\d+\.partial{re.escape(path.suffix)}")
    for file in list(path.parent.glob(".*.partial*")):
        found = pattern.fullmatch(file.name)
        if found and not is_running(int(found[1])):
            file.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    if os.name == "nt":  # there, os.kill ends what it should ask after
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Make an ``OSError`` of writing to ``path`` a ``SqueezeDetError``; a broken pipe stays one."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "Symlink loop" not in str(error):
            raise
        said = getattr(error, "strerror", None) or error
        raise SqueezeDetError(f"{path}: cannot be written ({said})") from error


def write_atomic(path: Path, content: bytes | str, mode: int | None = None) -> None:
    """Write bytes, or text as ``text_file`` does, to ``path``: whole, or not at all; ``mode`` as for ``replacing``.

    Raises:
        SqueezeDetError: the place cannot be written.
    """
    with replacing(path, mode) as temporary:
        temporary.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    r"""A UTF-8 text file that appears when it is whole.

    Names that are no text (bytes of another encoding in a file name) come out as
    ``\udcXX``, which JSON reads back as the same name.

    Raises:
        SqueezeDetError: the place cannot be written.
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        yield file


@contextmanager
def growing_file(path: Path) -> Iterator[TextIO]:
    """A UTF-8 text file as ``text_file``, but there from the start, for who follows it.

    Raises:
        SqueezeDetError: the place cannot be written.
    """
    with one_sentence(path), path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        yield file


def check_no_folder(path: Path) -> None:
    """Raises a UsageError before the work if a file cannot have its name, as a folder has it."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")


def check_file(path: Path) -> None:
    """Find out before the work whether a file of results can have this name.

    Raises:
        UsageError: it is a folder, has the name of an image, or its folder does not exist.
    """
    check_no_folder(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
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
        why = "is a file" if folder.is_file() else error.strerror or error
        raise UsageError(f"{folder}: cannot be made a folder ({why})") from error
    return folder


@contextmanager
def lock(folder: Path, busy: str) -> Iterator[None]:
    """Keep other processes from the same work in a folder while the block runs.

    A process that is killed lets go, and its workers do not hold on.

    Args:
        folder: made if need be.
        busy: what is said where another process is at it.

    Raises:
        UsageError: there is another one.
        SqueezeDetError: the folder cannot be written.
    """
    if not HAS_LOCKS:
        yield
        return
    path, held = folder / LOCK, False
    new = not folder.exists()
    with one_sentence(path):
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o644)
    try:
        try:
            locks.lockf(descriptor, locks.LOCK_EX | locks.LOCK_NB)
            if not os.fstat(descriptor).st_nlink:  # its owner has just ended, and removed it
                raise BlockingIOError
        except (BlockingIOError, PermissionError) as error:
            raise UsageError(f"{folder}: {busy}") from error
        except OSError:  # a file system without locks
            LOG.debug("%s: cannot be locked", path)
        held = True
        yield
    finally:
        if held:
            path.unlink(missing_ok=True)
        os.close(descriptor)
        if held and new and not any(folder.iterdir()):
            folder.rmdir()


# ----------------------------------------------------------------- the user's cache folder


def cache_folder() -> Path | None:
    """Where what was once found out is kept: by XDG, or as the platform has it; None without a home."""
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


# ----------------------------------------------------------------- signals

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, a polite kill, and the end of the terminal."""


class Interrupts:
    """While the block runs, a signal sets ``asked``; a second one interrupts at once.

    Outside the main thread, where Python handles no signals, it does nothing. A signal that was
    ignored before (``nohup``) stays ignored.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def ignore_signals(worker: int) -> None:
    """For worker processes: a signal to the whole group is the main process's to handle."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
