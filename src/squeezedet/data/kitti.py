"""KITTI folders: ``image_2/ID.png|jpg``, ``label_2/ID.txt``, and a split by list or manifest."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from squeezedet.data.sample import Objects, Sample
from squeezedet.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
LABEL_FIELDS = 15
LIMIT = 1_000_000  # no number of a label is larger


def read_labels(path: Path) -> Objects:
    """Read a KITTI label file, strictly.

    Every line has 15 blank-separated fields: type, truncated, occluded, alpha,
    x1, y1, x2, y2, and seven of the 3D box, which are checked and not kept.
    No number is beyond a million, and occluded is an integer.
    Windows line ends and a byte-order mark are accepted, blank lines are skipped.

    Raises:
        DataError: names file and line of the first malformed one.
    """
    types, rows = [], []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        name, values = _parse_line(line, f"{path}:{number}")
        types.append(name)
        rows.append(values)
    table = np.array(rows, dtype=np.float64).reshape(-1, 14)
    return Objects(
        types=tuple(types),
        xyxy=table[:, 3:7].astype(np.float32),
        truncated=table[:, 0].astype(np.float32),
        occluded=table[:, 1].astype(np.int64),
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot read the file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the file is not text (UTF-8)") from error


def _parse_line(line: str, where: str) -> tuple[str, list[float]]:
    fields = line.split()
    if len(fields) != LABEL_FIELDS:
        raise DataError(f"{where}: a label has {LABEL_FIELDS} fields, this line has {len(fields)}")
    values = [_number(field, where) for field in fields[1:]]
    if not values[1].is_integer():
        raise DataError(f"{where}: occluded is {fields[2]}, not an integer")
    x1, y1, x2, y2 = values[3:7]
    if x2 < x1 or y2 < y1:
        raise DataError(f"{where}: the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has x2 < x1 or y2 < y1")
    return fields[0], values


def _number(text: str, where: str) -> float:
    try:
        if "_" in text:  # Python's 1_000
            raise ValueError
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {text!r} is not a number") from None
    if not math.isfinite(value):
        raise DataError(f"{where}: {text} is not finite")
    if abs(value) > LIMIT:
        raise DataError(f"{where}: {text} is beyond {LIMIT}")
    return value


def format_labels(objects: Objects) -> str:
    """Label lines of 15 fields, two decimals; what a 2D label does not know is KITTI's unknown."""
    return "".join(
        f"{name} {truncated:.2f} {occluded} -10 {x1:.2f} {y1:.2f} {x2:.2f} {y2:.2f}"
        " -1 -1 -1 -1000 -1000 -1000 -10\n"
        for name, truncated, occluded, (x1, y1, x2, y2) in zip(
            objects.types, objects.truncated, objects.occluded, objects.xyxy, strict=True
        )
    )


def read_folder(root: Path, split: str | None = None) -> list[Sample]:
    """Read the samples of a KITTI folder in the order of the split.

    Args:
        root: holds ``image_2`` and ``label_2``.
        split: None or ``all`` for every label file; a name that ``manifest.tsv``
            (columns ``id`` and ``split``) uses; or a list of ids, one a line, in
            ``SPLIT.txt``, ``ImageSets/SPLIT.txt`` or a path of its own.

    Raises:
        DataError: a folder, a split, an image or a label is missing or malformed.
    """
    for folder in (root / "image_2", root / "label_2"):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; a KITTI folder has image_2 and label_2")
    ids = _split_ids(root, split)
    if not ids:
        raise DataError(f"{root}: split {split or 'all'!r} has no images")
    images = _images(root / "image_2")
    missing = [i for i in ids if i not in images]
    if missing:
        raise DataError(
            f"{root / 'image_2'}: no image for {len(missing)} of {len(ids)} ids, "
            f"the first is {missing[0]!r}"
        )
    return [Sample(i, images[i], read_labels(root / "label_2" / f"{i}.txt")) for i in ids]


def _images(folder: Path) -> dict[str, Path]:
    """The images by their ids."""
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.stem in images:
            raise DataError(
                f"{folder}: {images[path.stem].name} and {path.name} have the same id; remove one"
            )
        images[path.stem] = path
    return images


def _split_ids(root: Path, split: str | None) -> list[str]:
    if split is None or split == "all":
        return sorted(p.stem for p in (root / "label_2").glob("*.txt"))
    for listing in (root / f"{split}.txt", root / "ImageSets" / f"{split}.txt", Path(split)):
        if listing.is_file():
            return _read_text(listing).split()
    manifest = root / "manifest.tsv"
    if not manifest.is_file():
        raise DataError(
            f"{root}: split {split!r} is named by no {split}.txt, no ImageSets/{split}.txt "
            "and no manifest.tsv"
        )
    splits = _read_manifest(manifest)
    if split not in splits:
        raise DataError(f"{manifest}: no split {split!r}; it has {', '.join(sorted(splits))}")
    return splits[split]


def _read_manifest(path: Path) -> dict[str, list[str]]:
    """The ids of each split."""
    reader = csv.DictReader(_read_text(path).splitlines(), delimiter="\t")
    if not {"id", "split"} <= set(reader.fieldnames or ()):
        raise DataError(f"{path}: needs the columns id and split")
    splits: dict[str, list[str]] = {}
    for row in reader:
        if row["id"] is None or row["split"] is None:
            raise DataError(f"{path}:{reader.line_num}: the row is too short for id and split")
        splits.setdefault(row["split"], []).append(row["id"])
    return splits
