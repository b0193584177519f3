"""A set of labels: what one model found in many images and videos, as Parquet.

===========================  ======================================================================
``dataset.json``             model, classes, sources; it is there when ``inputs.parquet`` is whole
``inputs.parquet``           every image and video, a row group for each part
``labels/part-000000.parquet``  what was found in them, see ``SCHEMA``; the order is that of the inputs
``started/000000``           notes on a part that is being made, see ``label.Worker``
``lock``                     of the job that is at work
===========================  ======================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from squeezedet.data import coco, kitti
from squeezedet.data.convert import new_folder
from squeezedet.data.sample import LabelledSplits, Losses, Sample, boxes_only
from squeezedet.detections import Detections
from squeezedet.errors import DataError
from squeezedet.fleet.store import Store
from squeezedet.media.sinks import UniqueStems

FORMAT = "squeezedet labels 1"
WORD = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("frame", pa.int32()),  # of a video, from 0
        ("time_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("model", WORD),
        ("model_sha256", WORD),
        ("class", WORD),
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
    """What ``dataset.json`` says.

    Attributes:
        model, model_sha256: name of the model and checksum of its file.
        classes: of the model.
        score: lowest score that was kept; of each class where they differ.
        sources: what the inputs were found in.
        inputs, parts: how many images and videos, and in how many files their labels are.
        inputs_sha256: of all names of inputs; two sets of one checksum have the same parts.
    """

    model: str
    model_sha256: str
    classes: tuple[str, ...]
    score: float | tuple[float, ...]
    sources: tuple[str, ...]
    inputs: int = 0
    parts: int = 0
    inputs_sha256: str = ""


Found = tuple[int | None, Detections]
"""The number of a frame in its video, None for an image, and what was found in it."""


class LabelSet:
    """A set of labels in a folder or a store."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)

    def about(self) -> About | None:
        """What the set says of itself; None if there is none yet.

        Raises:
            DataError: the file is damaged, or of another program.
        """
        text = self.store.read("dataset.json")
        if text is None:
            return None
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise ValueError
            lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            return About(**{**values, **lists})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{self.store.url}/dataset.json: is not that of a set of labels") from error

    def begin(self, about: About) -> None:
        """Say that the list of inputs is whole."""
        self.store.write("dataset.json", json.dumps({"format": FORMAT, **asdict(about)}, indent=2).encode())

    def done(self) -> set[int]:
        """Numbers of the parts that are there."""
        names = (name.removeprefix("part-").removesuffix(".parquet") for name in self.store.names("labels"))
        return {int(name) for name in names if name.isdecimal()}

    def missing(self, about: About) -> list[int]:
        """Numbers of the parts that are not there."""
        return sorted(set(range(about.parts)) - self.done())

    def write(self, part: int, table: pa.Table) -> None:
        """Write the labels of a part."""
        content = BytesIO()
        pq.write_table(table, content, compression="zstd")
        self.store.write(part_name(part), content.getvalue())

    def read(self, part: int) -> pa.Table:
        """The rows of a part.

        Raises:
            DataError: the part is not there, or damaged.
        """
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

    COCO's file names are the paths of the inputs (``drive.mp4#12`` for a frame); KITTI has a file
    for each image, and ``images.tsv`` says of which.

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
