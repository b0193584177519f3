"""KITTI result files: one ``ID.txt`` for each image, 16 blank-separated fields a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from squeezedet.detections import Detections
from squeezedet.errors import DataError
from squeezedet.files import read_text

RESULT_FIELDS = 16
# Types that KITTI's labels know; a result file may name them even when they are not judged.
KITTI_TYPES = (
    "car",
    "van",
    "truck",
    "pedestrian",
    "person_sitting",
    "cyclist",
    "tram",
    "misc",
    "dontcare",
)


def read_results(
    folder: Path, ids: Sequence[str], names: Sequence[str] = KITTI_TYPES
) -> list[Detections]:
    """Read the result files of a folder, strictly.

    Windows line ends, a byte-order mark and blank lines are accepted; class names
    are compared without case. An image without a file has no detections.

    Args:
        folder: holds ``ID.txt``, directly or in ``data`` as the tool of KITTI wants it.
        ids: the labelled images, in their order.
        names: the class names that a file may use.

    Raises:
        DataError: no file for any image, a file for an image without labels, or a
            malformed line; names file and line.
    """
    files = result_files(folder, ids)
    table = {name.lower(): index for index, name in enumerate(names)}
    return [
        _read_file(files[i], table, tuple(names))
        if i in files
        else Detections.empty(tuple(names), image=i)
        for i in ids
    ]


def result_files(folder: Path, ids: Sequence[str]) -> dict[str, Path]:
    """The result file of each image that has one.

    Raises:
        DataError: there is none at all, or one for an image without labels.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of result files")
    if (folder / "data").is_dir() and not any(folder.glob("*.txt")):
        folder = folder / "data"
    files = {path.stem: path for path in folder.glob("*.txt")}
    if not files:
        raise DataError(f"{folder}: no result files; write one ID.txt for each image")
    unknown = sorted(files.keys() - set(ids))
    if unknown:
        raise DataError(
            f"{files[unknown[0]]}: detections for an image without labels"
            f" ({len(unknown)} of {len(files)} files); remove them or choose their split"
        )
    return files


def _read_file(path: Path, table: dict[str, int], names: tuple[str, ...]) -> Detections:
    lines = read_text(path, "result file").splitlines()
    rows = [
        _read_line(line.split(), table, f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    values = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        xyxy=values[:, 1:5].astype(np.float32),
        score=values[:, 5].astype(np.float32),
        class_id=values[:, 0].astype(np.int64),
        names=names,
        image=path.stem,
    )


def _read_line(fields: list[str], table: dict[str, int], where: str) -> list[float]:
    """Class index, x1, y1, x2, y2, score."""
    if len(fields) != RESULT_FIELDS:
        raise DataError(
            f"{where}: a result has {RESULT_FIELDS} fields, the score last;"
            f" this line has {len(fields)}"
        )
    class_id = table.get(fields[0].lower())
    if class_id is None:
        raise DataError(f"{where}: unknown class {fields[0]!r}; known are {', '.join(table)}")
    try:
        values = [float(field) for field in fields[1:]]
    except ValueError as error:
        raise DataError(f"{where}: not a number: {str(error).split(': ')[-1]}") from None
    if not all(math.isfinite(value) for value in values):
        raise DataError(f"{where}: a value is not finite")
    x1, y1, x2, y2 = values[3:7]
    if x2 < x1 or y2 < y1:
        raise DataError(f"{where}: the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has x2 < x1 or y2 < y1")
    return [class_id, x1, y1, x2, y2, values[14]]
