"""A set of labels: what one model found in many images and videos, as Parquet; and the list of these.

===========================  ======================================================================
``dataset.json``             model, classes, sources; it is there when ``inputs.parquet`` is whole
``inputs.parquet``           every image and video, a row group for each part
``labels/part-000000.parquet``  what was found in them, see ``SCHEMA``; the order is that of the inputs
``started/000000``           notes on a part that is being made, see ``label.Worker``
``lock``                     of the job that is at work
===========================  ======================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from squeezedet.data import coco, kitti
from squeezedet.data.convert import new_folder
from squeezedet.data.sample import LabelledSplits, Losses, Sample, boxes_only
from squeezedet.detections import Detections
from squeezedet.errors import DataError, UsageError
from squeezedet.files import IMAGE_SUFFIXES, open_regular
from squeezedet.fleet.store import FileSystem, Store, file_system, reaching
from squeezedet.media.kinds import VIDEO_SUFFIXES
from squeezedet.media.sinks import UniqueStems
from squeezedet.media.sources import walk_files

FORMAT = "squeezedet labels 1"
ABOUT, INPUTS = "dataset.json", "inputs.parquet"
IMAGES_PER_PART = 500
"""What one worker takes at a time, and what is lost of its work when it dies. A video is a part of its own."""
INPUTS_SCHEMA = pa.schema([("path", pa.string()), ("video", pa.bool_())])
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("frame", pa.int32()),  # of a video, from 0
        ("time_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("model", pa.string()),
        ("model_sha256", pa.string()),
        ("class", pa.string()),
        ("score", pa.float32()),
        *((side, pa.float32()) for side in ("x1", "y1", "x2", "y2")),
        ("error", pa.string()),
    ]
)
"""A row is a box; an image or frame without a box has one row without, and so has an input that
could not be read, with the reason. A video that breaks off has its frames and then the reason."""

Layout = Literal["coco", "kitti"]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What ``dataset.json`` says."""

    model: str
    model_sha256: str
    classes: tuple[str, ...]
    score: float | tuple[float, ...]  # lowest that was kept; of each class where they differ
    sources: tuple[str, ...]
    inputs: int = 0  # images and videos
    parts: int = 0  # files that their labels are in
    inputs_sha256: str = ""  # of all names of inputs; two sets of one checksum have the same parts


MAX_PARTS = 10_000_000
Found = tuple[int | None, Detections]
"""The number of a frame in its video, None for an image, and what was found in it."""


class LabelSet:
    """A set of labels in a folder or a store."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)

    def about(self) -> About | None:
        """What the set says of itself, None if there is none yet; a DataError if that is damaged."""
        text = self.store.read(ABOUT)
        if text is None:
            return None
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise ValueError
            lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            about = About(**{**values, **lists})
            if not (
                isinstance(about.parts, int) and 0 <= about.parts <= MAX_PARTS and isinstance(about.classes, tuple)
            ):
                raise ValueError
            return about
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{self.store.url}/{ABOUT}: is not that of a set of labels") from error

    def begin(self, about: About) -> None:
        """Say that the list of inputs is whole."""
        self.store.write(ABOUT, json.dumps({"format": FORMAT, **asdict(about)}, indent=2).encode())

    @cached_property
    def _list(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.store.open(INPUTS))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.store.url}/{INPUTS}: is damaged; label into a new folder") from error

    def inputs(self, part: int) -> list[tuple[str, bool]]:
        """Path of each input of a part, and whether it is a video."""
        table = self._list.read_row_group(part)
        return list(zip(table["path"].to_pylist(), table["video"].to_pylist(), strict=True))

    def done(self) -> set[int]:
        """Numbers of the parts that are there."""
        names = (name.removeprefix("part-").removesuffix(".parquet") for name in self.store.names("labels"))
        return {int(name) for name in names if name.isdecimal()}

    def missing(self, about: About) -> list[int]:
        """Numbers of the parts that are not there."""
        done = self.done()
        return [part for part in range(about.parts) if part not in done]

    def write(self, part: int, table: pa.Table) -> None:
        content = BytesIO()
        pq.write_table(table, content, compression="zstd")
        self.store.write(part_name(part), content.getvalue())

    def read(self, part: int) -> pa.Table:
        """The rows of a part; a DataError if it is not there, or damaged."""
        content = self.store.read(part_name(part))
        if content is None:
            raise DataError(f"{self.store.url}: part {part} is missing; finish the labels with `resume=True`")
        try:
            return pq.read_table(BytesIO(content), schema=SCHEMA)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.store.url}/{part_name(part)}: is damaged; remove it and make it again") from error

    def frames(self, part: int, classes: tuple[str, ...]) -> Iterator[Found]:
        """What was found, frame by frame, without what could not be read."""
        table = self.read(part)
        wanted = ("path", "frame", "time_s", "width", "height", "class", "error")
        path, frame, time_s, width, height, names, error = (table[name].to_pylist() for name in wanted)
        score = table["score"].to_numpy()
        xyxy = np.column_stack([table[side].to_numpy() for side in ("x1", "y1", "x2", "y2")])
        for _, group in groupby(range(len(path)), key=lambda row: (path[row], frame[row])):
            rows = list(group)
            first = rows[0]
            if error[first] is not None:
                continue
            boxes = [row for row in rows if names[row] is not None]
            if stranger := next((names[row] for row in boxes if names[row] not in classes), None):
                raise DataError(f"{self.store.url}/{part_name(part)}: has the class {stranger!r}, and {ABOUT} has not")
            yield (
                frame[first],
                Detections(
                    xyxy[boxes],
                    score[boxes],
                    np.array([classes.index(names[row]) for row in boxes], np.int64),
                    classes,
                    image=path[first],
                    width=width[first],
                    height=height[first],
                    time_s=time_s[first],
                ),
            )


def part_name(part: int) -> str:
    """The file of a part."""
    return f"labels/part-{part:06d}.parquet"


# ----------------------------------------------------------------- other layouts


def write_layout(labels: LabelSet, about: About, layout: Layout) -> Path:
    """Write the labels once more, as files of another layout, into a new folder in that of the set.

    COCO's file names are the paths of the inputs (``drive.mp4#12`` for a frame); KITTI has a file for each image, and
    ``images.tsv`` says of which.

    Raises:
        UsageError: the set is in an object store, or the folder is there already.
        SqueezeDetError: the place cannot be written.
    """
    stems = UniqueStems()
    samples, files = [], {}
    for part in range(about.parts):
        for frame, found in labels.frames(part, about.classes):
            file = found.image if frame is None else f"{found.image}#{frame}"
            stem = "_".join(stems(found.image if frame is None else f"{Path(found.image).stem}_{frame:06d}").split())
            objects = boxes_only([box.name for box in found], found.xyxy)
            samples.append(Sample(stem, Path(file), objects, (found.width, found.height)))
            files[stem] = file
    new = LabelledSplits({"all": samples}, about.classes)
    with new_folder(labels.store.path(layout)) as folder:
        if layout == "coco":
            coco.write(folder, new, Losses(), files)
        else:
            kitti.write(folder, new, Losses())
        lines = "".join(f"{stem}\t{file}\n" for stem, file in files.items())
        (folder / "images.tsv").write_text(lines, encoding="utf-8", errors="backslashreplace")
    return labels.store.path(layout)


# ----------------------------------------------------------------- inputs


def write_list(store: Store, sources: Sequence[str], images_per_part: int = IMAGES_PER_PART) -> tuple[int, int, str]:
    """Write the list of all inputs, each once: how many inputs and parts (row groups) it has, and its checksum.

    Raises:
        DataError: a source does not exist, or none holds an image or a video.
        SqueezeDetError: a store does not answer, or the place cannot be written.
    """
    digest, inputs, parts = hashlib.sha256(), 0, 0
    with store.writing(INPUTS) as file, pq.ParquetWriter(file, INPUTS_SCHEMA, write_statistics=False) as writer:
        for part in _parts(_once(sources), images_per_part):
            paths = [path for path, _ in part]
            digest.update("".join(f"{path}\n" for path in paths).encode())
            writer.write_table(pa.table([paths, [video for _, video in part]], schema=INPUTS_SCHEMA))
            inputs, parts = inputs + len(part), parts + 1
        if not inputs:
            raise DataError(f"{', '.join(sources)}: no image and no video there")
    return inputs, parts, digest.hexdigest()


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
            paths = map(str, walk_files(path, _complain)) if local else _walk(found, path)
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


def _complain(error: OSError) -> None:
    raise error


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
