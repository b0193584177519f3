"""Where fleets keep files: folders and object stores by one name, through fsspec."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from squeezedet.errors import DataError, SqueezeDetError, UsageError
from squeezedet.files import is_running, make_folder, read_regular, reason, replacing, too_many_bytes, write_atomic
from squeezedet.media.images import MAX_FILE_BYTES

LOCK_REFRESH_S = 30.0
LOCK_STALE_S = 120.0
"""A lock that nobody refreshed for so long belongs to a job that is dead."""

FileSystem = Any  # fsspec has no types


def file_system(url: str) -> tuple[FileSystem, str]:
    """What reads a path or URL, and the name by which it does; a UsageError for a store that is unknown here."""
    if "://" not in url:
        return LocalFileSystem(), str(Path(url).absolute())
    try:
        found, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url}: {error}") from error
    return found, str(path)


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Make what a store raises an error of the package.

    Raises:
        DataError: there is no such file, or it may not be read.
        SqueezeDetError: the store does not answer as it should.
    """
    try:
        yield
    except (SqueezeDetError, FileExistsError):
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DataError(f"{url}: {reason(error)}") from error
    except Exception as error:  # each store has errors of its own
        said = " ".join(str(error).split()) or type(error).__name__
        raise SqueezeDetError(f"{url}: the store does not answer ({said:.300})") from error


def read_file(url: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The content of one file; a DataError if this file is at fault, a SqueezeDetError if its store is."""
    found, path = file_system(url)
    if isinstance(found, LocalFileSystem):
        return read_regular(Path(path), max_bytes, what="image")
    try:
        with reaching(url):
            content: bytes = found.cat_file(path)
    except DataError:
        raise
    except SqueezeDetError as error:
        with reaching(url):
            found.info(path)  # if the store knows of it, the fault is the file's
        raise DataError(str(error).replace("the store does not answer", "cannot be read")) from error
    if len(content) > max_bytes:
        raise DataError(f"{url}: {too_many_bytes(max_bytes)}")
    return content


class Store:
    """A folder of results, on this machine or in an object store. Files appear whole or not at all."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or "/"
        self._fs, self._root = file_system(self.url)
        self.local = isinstance(self._fs, LocalFileSystem)

    def path(self, name: str) -> Path:
        return Path(self._root, name)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        with reaching(f"{self.url}/{name}"):
            try:
                content: bytes = self._fs.cat_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return None
        return content

    def open(self, name: str) -> IO[bytes]:
        """A file for reading here and there."""
        with reaching(f"{self.url}/{name}"):
            file: IO[bytes] = self._fs.open(f"{self._root}/{name}", "rb")
        return file

    def names(self, folder: str = "") -> set[str]:
        """Of the files in a folder of the folder; none if there is no such folder."""
        with reaching(f"{self.url}/{folder}"):
            try:
                listed = self._fs.ls(f"{self._root}/{folder}".rstrip("/"), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return set()
        return {Path(path).name for path in listed}

    def write(self, name: str, content: bytes) -> None:
        if self.local:
            write_atomic(self.path(name), content)
            return
        with reaching(f"{self.url}/{name}"):
            self._fs.pipe_file(f"{self._root}/{name}", content)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A large file, written piece by piece."""
        if self.local:
            with replacing(self.path(name)) as temporary, temporary.open("wb") as file:
                yield file
            return
        try:
            with reaching(f"{self.url}/{name}"), self._fs.open(f"{self._root}/{name}", "wb") as file:
                yield file
        except BaseException:
            self.remove(name)  # what a store has got until then, it keeps
            raise

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with reaching(f"{self.url}/{name}"), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    # ------------------------------------------------------------- the lock

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other jobs out of the folder.

        A lock is over with its process, or where that ran on another machine two minutes after it was last refreshed.

        Raises:
            UsageError: another job is at work in the folder.
        """
        self._take_lock()
        over = threading.Event()

        def refresh() -> None:
            while not over.wait(LOCK_REFRESH_S):
                with suppress(SqueezeDetError):  # the job itself says what is wrong with the store
                    self.write("lock", _lock())

        thread = threading.Thread(target=refresh, name="lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(SqueezeDetError):
                self.remove("lock")
            if self.local:
                with suppress(OSError):  # nothing came of it
                    self.path("").rmdir()

    def _take_lock(self) -> None:
        content = self.read("lock")
        if content is not None:
            with suppress(ValueError, KeyError, TypeError):  # of a job that died before it was written
                other = json.loads(content)
                age_s = time.time() - other["time"]
                dead = other["host"] == socket.gethostname() and not is_running(other["pid"])
                if not dead and age_s < LOCK_STALE_S:
                    raise UsageError(
                        f"{self.url}: another job is at work there (process {other['pid']} of {other['host']}, seen "
                        f"{age_s:.0f} s ago); wait for its end, or {LOCK_STALE_S:.0f} s if it is dead"
                    )
            self.remove("lock")
        try:
            if self.local:
                make_folder(self.path(""))
                with self.path("lock").open("xb") as file:
                    file.write(_lock())
            else:
                with reaching(f"{self.url}/lock"):
                    self._fs.pipe_file(f"{self._root}/lock", _lock(), mode="create")
        except FileExistsError as error:
            raise UsageError(f"{self.url}: another job has just begun there") from error
        except OSError as error:
            raise SqueezeDetError(f"{self.url}: cannot be written ({error.strerror or error})") from error


def _lock() -> bytes:
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}).encode()
