"""KITTI folders: ``image_2/ID.png|jpg``, ``label_2/ID.txt``, and splits by lists or a manifest."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from squeezedet.data.folders import (
    FolderLayout,
    LabelFolders,
    files_in,
    folders_of_splits,
    is_file,
    lists_in,
    slashes,
    subfolder,
    write_lists,
)
from squeezedet.data.sample import (
    DONT_CARE,
    LabelledSplits,
    Losses,
    Objects,
    ReadResult,
    Sample,
    check_box,
    is_number,
    number,
    split_name,
    write_text,
)
from squeezedet.errors import DataError
from squeezedet.files import read_text

IMAGES = "image_2"
KITTI_TYPES = ("car", "van", "truck", "pedestrian", "person_sitting", "cyclist", "tram", "misc", "dontcare")
"""The types of KITTI's own labels, in lower case."""
LABEL_FIELDS = 15
UNKNOWN_3D = (-10.0, -1.0, -1.0, -1.0, -1000.0, -1000.0, -1000.0, -10.0)
"""What alpha and the 3D box are where nobody measured them."""
SNIFFED = 20
"""So many label files are looked at to tell KITTI's lines from others'."""
Row = tuple[int, str, list[float]]
"""Line, type, and the 14 numbers of a label."""


# ---------------------------------------------------------------------- labels


def read_labels(path: Path) -> Objects:
    """Read a KITTI label file, strictly.

    Every line has 15 blank-separated fields: type, truncated, occluded, alpha, x1, y1, x2, y2, and
    seven of the 3D box, which are checked and not kept. No number is beyond a million, and
    occluded is an integer. Windows line ends and a byte-order mark are accepted, blank lines are
    skipped.

    Raises:
        DataError: names file and line of the first malformed one.
    """
    return _objects(_rows(path, ReadResult()))


def _rows(path: Path, reading: ReadResult) -> list[Row]:
    rows = []
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            with reading.refusing(path, line_number):
                rows.append((line_number, *parse_line(line.split(), f"{path}:{line_number}")))
    return rows


def _objects(rows: Sequence[Row]) -> Objects:
    table = np.array([values for _, _, values in rows], dtype=np.float64).reshape(-1, 14)
    return Objects(
        types=tuple(name for _, name, _ in rows),
        xyxy=table[:, 3:7].astype(np.float32),
        truncated=table[:, 0].astype(np.float32),
        occluded=table[:, 1].astype(np.int64),
    )


def parse_line(fields: list[str], where: str, *, result: bool = False) -> tuple[str, list[float]]:
    """The type and the 14 numbers of a label, or the 15 of a result, whose last is the score.

    Raises:
        DataError: names the place.
    """
    expected = LABEL_FIELDS + result
    if len(fields) != expected:
        what = "a result has 16 fields, the score last" if result else "a label has 15 fields"
        score = " (the last of 16 is the score of a result)" if len(fields) == 16 else ""
        raise DataError(f"{where}: {what}, this line has {len(fields)}{score}")
    values = [number(field, where) for field in fields[1:]]
    if not values[1].is_integer():
        raise DataError(f"{where}: occluded is {fields[2]}, not an integer")
    check_box(values[3:7], where)
    return fields[0], values


def format_labels(objects: Objects) -> str:
    """Label lines of 15 fields, two decimals; what a 2D label does not know is KITTI's unknown."""
    return "".join(
        f"{name} {truncated:.2f} {occluded} -10 {x1:.2f} {y1:.2f} {x2:.2f} {y2:.2f} -1 -1 -1 -1000 -1000 -1000 -10\n"
        for name, truncated, occluded, (x1, y1, x2, y2) in zip(
            objects.types, objects.truncated, objects.occluded, objects.xyxy, strict=True
        )
    )


# --------------------------------------------------------------------- folders


def find_files(path: Path) -> list[LabelFolders]:
    """Where a folder has KITTI's labels; nothing if it is no KITTI folder.

    ``image_2`` and ``label_2``, also under ``training``; ``data`` or ``images`` beside
    ``labels`` (FiftyOne, NVIDIA's TAO and DIGITS) where the labels are KITTI's lines; either
    in folders of splits (``train/images``), or these in them (``images/train``).
    """
    for root in (path, path / "training"):
        if found := _pair(root):
            return [LabelFolders("", root, *found)]
    return folders_of_splits(path, _pair)


def _pair(root: Path) -> tuple[Path, Path] | None:
    """The folders of labels and images within one."""
    images, labels = subfolder(root, IMAGES), subfolder(root, "label_2")
    if images and labels:
        return labels, images
    images, labels = subfolder(root, "data", "images"), subfolder(root, "labels")
    return (labels, images) if images and labels and _has_lines(labels) else None


def _has_lines(labels: Path) -> bool:
    """Whether label files hold lines as KITTI's: a word, then 14 numbers or with a score 15."""
    for path in files_in(labels, (".txt",))[:SNIFFED]:
        with contextlib.suppress(DataError):  # what cannot be read, the reader says
            words = read_text(path).strip().partition("\n")[0].split()
            if words:
                return not is_number(words[0]) and len(words) in (15, 16) and all(map(is_number, words[1:]))
    return False


def _read_one(i: str, image: Path, label: Path, reading: ReadResult) -> Sample:
    rows = _rows(label, reading)
    reading.note(sum((r[2][2], *r[2][7:]) != UNKNOWN_3D for r in rows), "3D boxes or angles, not read")
    good = []
    for line, name, values in rows:
        x1, y1, x2, y2 = values[3:7]
        if x2 > x1 and y2 > y1:
            good.append((line, name, values))
        else:
            reading.skip(label, line, f"the box of {name} has no area")
    return Sample(i, image, _objects(good))


def _named_splits(root: Path, known: Collection[str]) -> dict[str, list[str]]:
    """The ids of each split that ``ImageSets/*.txt``, ``*.txt`` beside ``image_2`` or ``manifest.tsv`` name.

    ``ImageSets`` may also stand beside ``training``, as OpenPCDet and MMDetection3D have it. For text files beside
    ``image_2`` see ``lists_in``.
    """
    manifest = root / "manifest.tsv"
    splits = _read_manifest(manifest) if is_file(manifest) else {}
    beside = subfolder(root.parent, "ImageSets") if root.name.lower() == "training" else None
    if listings := subfolder(root, "ImageSets") or beside:
        splits |= lists_in(listings)
    splits |= lists_in(root, known)
    return {name: list(dict.fromkeys(ids)) for name, ids in splits.items() if ids}


def _read_manifest(path: Path) -> dict[str, list[str]]:
    reader = csv.DictReader(read_text(path).splitlines(), delimiter="\t")
    if not {"id", "split"} <= set(reader.fieldnames or ()):
        raise DataError(f"{path}: needs the columns id and split")
    splits: dict[str, list[str]] = {}
    for row in reader:
        if row["id"] is None or row["split"] is None:
            raise DataError(f"{path}:{reader.line_num}: the row is too short for id and split")
        splits.setdefault(split_name(row["split"]), []).append(slashes(row["id"]))
    return splits


LAYOUT = FolderLayout(
    ".txt", "no KITTI folder; it has image_2 and label_2", find_files, _pair, _named_splits, _read_one
)


# -------------------------------------------------------------------- writing


def write(root: Path, new: LabelledSplits, losses: Losses) -> None:
    """Write ``label_2`` and ``ImageSets`` beside the images that are in ``image_2`` already.

    KITTI has no class for an area that counts neither way, and no blank in a name: ignored
    objects become DontCare, blanks "_".

    Raises:
        DataError: two names are one without blanks.
        OSError: the place cannot be written.
    """
    words = {name: "_".join(name.split()) for name in new.types}
    if len(set(words.values())) < len(words):
        raise DataError(f"KITTI's names have no blanks, and two of {', '.join(new.types)} become one")
    for sample in new.samples():
        write_text(root / "label_2" / f"{sample.id}.txt", _labels(sample, words, losses))
    write_lists(root / "ImageSets", new.splits)


def _labels(sample: Sample, words: Mapping[str, str], losses: Losses) -> str:
    objects = sample.objects
    losses.add(sample, objects.ignored, "the class of an ignored object: KITTI says DontCare")
    renamed = np.array([words[name] != name for name in objects.types], dtype=bool)
    losses.add(sample, renamed, "blanks in a class name")
    return format_labels(
        Objects(
            tuple(
                DONT_CARE if ignored else words[name]
                for name, ignored in zip(objects.types, objects.ignored.tolist(), strict=True)
            ),
            objects.xyxy,
            np.where(objects.ignored, np.float32(-1), objects.truncated),
            np.where(objects.ignored, -1, objects.occluded),
        )
    )
