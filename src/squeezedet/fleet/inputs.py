"""What is to be labelled: folders, patterns, stores and lists become one list of images and videos."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from squeezedet.errors import DataError, UsageError
from squeezedet.files import IMAGE_SUFFIXES, open_regular
from squeezedet.fleet.store import FileSystem, Store, file_system, reaching
from squeezedet.media.kinds import VIDEO_SUFFIXES

IMAGES_PER_PART = 500
"""What one worker takes at a time, and what is lost of its work when it dies. A video is a part of its own."""
NAME = "inputs.parquet"
PARTS_SCHEMA = pa.schema([("path", pa.string()), ("video", pa.bool_())])


def write_list(store: Store, sources: Sequence[str], images_per_part: int = IMAGES_PER_PART) -> tuple[int, int, str]:
    """Write the list of all inputs into a folder of labels; each stands there once.

    Returns:
        How many inputs, how many parts (row groups of the list), and the checksum of all names.

    Raises:
        DataError: a source does not exist, or none holds an image or a video.
        SqueezeDetError: a store does not answer, or the place cannot be written.
    """
    digest, inputs, parts = hashlib.sha256(), 0, 0
    with store.writing(NAME) as file, pq.ParquetWriter(file, PARTS_SCHEMA, write_statistics=False) as writer:
        for part in _parts(_once(sources), images_per_part):
            paths = [path for path, _ in part]
            digest.update("".join(f"{path}\n" for path in paths).encode())
            writer.write_table(pa.table([paths, [video for _, video in part]], schema=PARTS_SCHEMA))
            inputs, parts = inputs + len(part), parts + 1
        if not inputs:
            raise DataError(f"{', '.join(sources)}: no image and no video there")
    return inputs, parts, digest.hexdigest()


class Parts:
    """The list of inputs, of which each part is read when it is asked for."""

    def __init__(self, store: Store) -> None:
        self._file = pq.ParquetFile(store.open(NAME))

    def read(self, part: int) -> list[tuple[str, bool]]:
        """Path of each input of a part, and whether it is a video."""
        table = self._file.read_row_group(part)
        return list(zip(table["path"].to_pylist(), table["video"].to_pylist(), strict=True))


def _parts(found: Iterable[tuple[str, bool]], size: int) -> Iterator[list[tuple[str, bool]]]:
    images: list[tuple[str, bool]] = []
    for path, video in found:
        if video:
            yield [(path, True)]
            continue
        images.append((path, False))
        if len(images) == size:
            yield images
            images = []
    if images:
        yield images


def _once(sources: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The inputs of all sources; what two of them or a list name twice comes once."""
    alone = len(sources) == 1 and not sources[0].endswith(".parquet")
    seen: set[bytes] = set()  # of digests: ten million names would take twice the memory
    for source in sources:
        for name, video in _find(source):
            path = name.encode("utf-8", "backslashreplace").decode()  # of a name that is no text, the row says so
            if not alone:
                key = hashlib.blake2b(path.encode(), digest_size=16).digest()
                if key in seen:
                    continue
                seen.add(key)
            yield path, video


def _find(source: str) -> Iterator[tuple[str, bool]]:
    """The images and videos behind one name, in a fixed order."""
    if not source:
        raise UsageError("an empty name is no source")
    found, path = file_system(source)
    local = isinstance(found, LocalFileSystem)

    def named(inner: str) -> str:
        return inner if local else str(found.unstrip_protocol(inner))

    with reaching(source):
        if found.isdir(path):
            paths = _walk_here(path) if local else _walk(found, path)
        elif found.exists(path):
            if source.endswith(".parquet"):
                yield from _listed(found, path, source)
            else:
                yield named(path), _suffix(path) in VIDEO_SUFFIXES
            return
        elif any(sign in path for sign in "*?["):
            paths = iter(sorted(found.glob(path)))
        else:
            raise DataError(f"{source}: there is no such file or folder")
        for inner in paths:
            suffix = _suffix(inner)
            if suffix in IMAGE_SUFFIXES or suffix in VIDEO_SUFFIXES:
                yield named(inner), suffix in VIDEO_SUFFIXES


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _walk_here(folder: str) -> Iterator[str]:
    """The files of a folder of this machine and of its folders, hidden ones left out, links followed."""

    def complain(error: OSError) -> None:
        raise error

    entered = {os.path.realpath(folder)}  # links may lead in circles: each folder once
    for place, folders, names in os.walk(folder, onerror=complain, followlinks=True):
        inner = {name: os.path.realpath(Path(place, name)) for name in sorted(folders) if not name.startswith(".")}
        folders[:] = [name for name, real in inner.items() if real not in entered]
        entered.update(inner[name] for name in folders)
        yield from (str(Path(place, name)) for name in sorted(names) if not name.startswith("."))


def _walk(found: FileSystem, folder: str) -> Iterator[str]:
    """The files of a store, folder by folder; what cannot be listed is an error."""
    for place, folders, names in found.walk(folder, on_error="raise"):
        folders.sort()
        yield from (f"{place}/{name}" for name in sorted(names) if name and not name.startswith("."))


def _listed(found: FileSystem, path: str, source: str) -> Iterator[tuple[str, bool]]:
    """The column ``path`` of a Parquet file."""
    try:
        local = isinstance(found, LocalFileSystem)
        with open_regular(Path(path)) if local else found.open(path, "rb") as file:
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            if "path" not in names:
                raise DataError(f"{source}: a list of inputs has a column path, this has {', '.join(names)}")
            for batch in table.iter_batches(columns=["path"]):
                for name in batch.column(0).to_pylist():
                    if not isinstance(name, str) or not name:
                        raise DataError(f"{source}: the column path holds {name!r}, which is no name")
                    yield name if "://" in name else str(Path(name).absolute()), _suffix(name) in VIDEO_SUFFIXES
    except pa.ArrowInvalid as error:
        raise DataError(f"{source}: is no Parquet file ({str(error).splitlines()[0]})") from error
