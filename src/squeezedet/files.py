"""Read text, and write files whole or not at all."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from squeezedet.errors import DataError, SqueezeDetError

# ---- files: Read text, and write files whole or not at all.


def _umask() -> int:
    umask = os.umask(0)  # it cannot be read without being set
    os.umask(umask)
    return umask


MODE = 0o666 & ~_umask()
"""What a new file's permissions are; asked once, as setting the umask concerns every thread."""


def read_text(path: Path, what: str = "file") -> str:
    """A text file, UTF-8 with or without a byte-order mark.

    Args:
        path: of the file.
        what: it is, for the sentence if it cannot be had.

    Raises:
        DataError: it cannot be read or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot read the {what}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the {what} is not text (UTF-8)") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    The folder of ``path`` is made if need be; after an error nothing is left behind.
    The block should do nothing but write: its ``OSError`` counts as one of writing.

    Raises:
        SqueezeDetError: the place cannot be written, with the reason.
    """
    with one_sentence(path), _temporary(path) as temporary:
        yield temporary
        with temporary.open("rb+") as file:  # on disk before it gets its name
            os.fsync(file.fileno())
        temporary.chmod(MODE)
        temporary.replace(path)


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Make an ``OSError`` of writing to ``path`` a ``SqueezeDetError``; a broken pipe stays one."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SqueezeDetError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """An empty file beside ``path`` that is gone after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, to ``path``: whole, or not at all.

    Raises:
        SqueezeDetError: the place cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


# ---- interrupts: Ctrl-C and SIGTERM ask work to stop; it does so between two of its pieces.

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While the block runs, a signal sets ``asked``; a second one interrupts at once.

    Outside the main thread, where Python handles no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
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
