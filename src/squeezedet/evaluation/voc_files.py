"""Pascal VOC files: annotations as XML, and one file of detections for each class."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from squeezedet.data.reading import Reading
from squeezedet.data.voc import read_list
from squeezedet.data.voc_xml import read_annotation
from squeezedet.detections import Detections
from squeezedet.errors import DataError
from squeezedet.evaluation.voc import VocObjects
from squeezedet.files import read_text

RESULT_FIELDS = 6


def image_ids(root: Path, split: str | None = None) -> list[str]:
    """The images of a split: a list ``SPLIT.txt`` or ``ImageSets/Main/SPLIT.txt``, or all.

    Raises:
        DataError: there is no such list, or no annotation.
    """
    if split is not None and split != "all":
        for path in (root / f"{split}.txt", root / "ImageSets" / "Main" / f"{split}.txt"):
            if path.is_file():
                return _listed(path)
        raise DataError(f"{root}: no {split}.txt and no ImageSets/Main/{split}.txt")
    ids = sorted(path.stem for path in (root / "Annotations").glob("*.xml"))
    if not ids:
        raise DataError(f"{root / 'Annotations'}: no annotations (*.xml)")
    return ids


def _listed(path: Path) -> list[str]:
    ids = read_list(path)
    if not ids:
        raise DataError(f"{path}: the list of images is empty")
    return ids


def read_annotations(root: Path, ids: Sequence[str]) -> list[VocObjects]:
    """Read ``Annotations/ID.xml`` of each image.

    Raises:
        DataError: a file is missing or malformed.
    """
    return [_read_annotation(root / "Annotations" / f"{i}.xml") for i in ids]


def _read_annotation(path: Path) -> VocObjects:
    found = read_annotation(path, Reading())
    for line, box in zip(found.lines, found.xyxy.tolist(), strict=True):
        _check_box(box, f"{path}:{line}")
    return VocObjects(found.types, found.xyxy.astype(np.float32), found.difficult)


def read_detections(folder: Path, ids: Sequence[str]) -> list[Detections]:
    """Read ``CLASS.txt`` files, lines of image, score, x1, y1, x2, y2.

    Returns:
        The detections of each image; ``names`` are the classes that have a file.

    Raises:
        DataError: no file, an image without labels, or a malformed line.
    """
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder}: no detections; VOC wants one CLASS.txt for each class")
    known = set(ids)
    rows: dict[str, list[tuple[int, list[float]]]] = defaultdict(list)
    for class_id, path in enumerate(files):
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if line.strip():
                image, values = _read_line(line.split(), f"{path}:{number}", known)
                rows[image].append((class_id, values))
    names = tuple(path.stem for path in files)
    return [_detections(rows[i], names, i) for i in ids]


def _detections(
    rows: list[tuple[int, list[float]]], names: tuple[str, ...], image: str
) -> Detections:
    values = np.array([v for _, v in rows], np.float64).reshape(-1, 5)
    return Detections(
        values[:, 1:].astype(np.float32),
        values[:, 0].astype(np.float32),
        np.array([c for c, _ in rows], np.int64),
        names,
        image=image,
    )


def _read_line(fields: list[str], where: str, known: set[str]) -> tuple[str, list[float]]:
    if len(fields) != RESULT_FIELDS:
        raise DataError(
            f"{where}: a detection has {RESULT_FIELDS} fields (image, score, box),"
            f" this line has {len(fields)}"
        )
    if fields[0] not in known:
        raise DataError(f"{where}: detection in {fields[0]!r}, an image without labels")
    try:
        values = [float(field) for field in fields[1:]]
    except ValueError as error:
        raise DataError(f"{where}: not a number: {str(error).split(': ')[-1]}") from None
    _check_box(values, where)
    return fields[0], values


def _check_box(values: list[float], where: str) -> None:
    if not all(math.isfinite(value) for value in values):
        raise DataError(f"{where}: a value is not finite")
    x1, y1, x2, y2 = values[-4:]
    if x2 < x1 or y2 < y1:
        raise DataError(f"{where}: the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has x2 < x1 or y2 < y1")
