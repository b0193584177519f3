"""KITTI folders: ``image_2/ID.png|jpg``, ``label_2/ID.txt``, and splits by lists or a manifest."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from squeezedet.data.folders import (
    SPLITS,
    by_id,
    files_in,
    images_in,
    is_file,
    lists_in,
    match_ids,
    read_ids,
    slashes,
    subfolder,
)
from squeezedet.data.sample import Found, Objects, ReadResult, Sample, is_number, number, split_name, types_by_frequency
from squeezedet.data.writing import LabelledImage, Losses, NewDataSet, write_text
from squeezedet.errors import DataError
from squeezedet.files import read_text

IMAGES = "image_2"
LABEL_FIELDS = 15
UNKNOWN_3D = (-10.0, -1.0, -1.0, -1.0, -1000.0, -1000.0, -1000.0, -10.0)
"""What alpha and the 3D box are where nobody measured them."""


def read_labels(path: Path) -> Objects:
    """Read a KITTI label file, strictly.

    Every line has 15 blank-separated fields: type, truncated, occluded, alpha,
    x1, y1, x2, y2, and seven of the 3D box, which are checked and not kept.
    No number is beyond a million, and occluded is an integer.
    Windows line ends and a byte-order mark are accepted, blank lines are skipped.

    Raises:
        DataError: names file and line of the first malformed one.
    """
    rows = _rows(path, ReadResult())
    return _objects([row[1:] for row in rows])


Row = tuple[int, str, list[float]]
"""Line, type, and the 14 numbers of a label."""


def _rows(path: Path, reading: ReadResult) -> list[Row]:
    rows = []
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            with reading.refusing(path, line_number):
                rows.append((line_number, *_parse_line(line, f"{path}:{line_number}")))
    return rows


def _objects(rows: Sequence[tuple[str, list[float]]]) -> Objects:
    table = np.array([values for _, values in rows], dtype=np.float64).reshape(-1, 14)
    return Objects(
        types=tuple(name for name, _ in rows),
        xyxy=table[:, 3:7].astype(np.float32),
        truncated=table[:, 0].astype(np.float32),
        occluded=table[:, 1].astype(np.int64),
    )


def _parse_line(line: str, where: str) -> tuple[str, list[float]]:
    fields = line.split()
    if len(fields) != LABEL_FIELDS:
        score = " (the last of 16 is the score of a result)" if len(fields) == 16 else ""
        raise DataError(f"{where}: a label has {LABEL_FIELDS} fields, this line has {len(fields)}{score}")
    values = [number(field, where) for field in fields[1:]]
    if not values[1].is_integer():
        raise DataError(f"{where}: occluded is {fields[2]}, not an integer")
    x1, y1, x2, y2 = values[3:7]
    if x2 < x1 or y2 < y1:
        raise DataError(f"{where}: the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has x2 < x1 or y2 < y1")
    return fields[0], values


def format_labels(objects: Objects) -> str:
    """Label lines of 15 fields, two decimals; what a 2D label does not know is KITTI's unknown."""
    return "".join(
        f"{name} {truncated:.2f} {occluded} -10 {x1:.2f} {y1:.2f} {x2:.2f} {y2:.2f} -1 -1 -1 -1000 -1000 -1000 -10\n"
        for name, truncated, occluded, (x1, y1, x2, y2) in zip(
            objects.types, objects.truncated, objects.occluded, objects.xyxy, strict=True
        )
    )


SNIFFED = 20
"""So many label files are looked at to tell KITTI's lines from others'."""


@dataclass(frozen=True, slots=True)
class KittiFiles:
    """Folders of images and labels.

    Attributes:
        split: its name where the folders are a split, else "".
        root: may hold lists of ids and a manifest.
        images: folder of the images.
        labels: folder of the label files.
    """

    split: str
    root: Path
    images: Path
    labels: Path


def find_files(path: Path) -> list[KittiFiles]:
    """Where a folder has KITTI's labels; nothing if it is no KITTI folder.

    ``image_2`` and ``label_2``, also under ``training``; ``data`` or ``images`` beside
    ``labels`` (FiftyOne, NVIDIA's TAO and DIGITS) where the labels are KITTI's lines; either
    in folders of splits (``train/images``), or these in them (``images/train``).
    """
    for root in (path, path / "training"):
        if found := _pair(root):
            return [KittiFiles("", root, *found)]
    splits = {}
    for name in (*SPLITS, "trainval"):
        if (folder := subfolder(path, name)) and (found := _pair(folder)):
            splits[split_name(name)] = KittiFiles(split_name(name), folder, *found)
    return list(splits.values())


def _pair(root: Path) -> tuple[Path, Path] | None:
    """The folders of images and labels within one."""
    images, labels = subfolder(root, IMAGES), subfolder(root, "label_2")
    if images and labels:
        return images, labels
    images, labels = subfolder(root, "data", "images"), subfolder(root, "labels")
    return (images, labels) if images and labels and _has_lines(labels) else None


def _has_lines(labels: Path) -> bool:
    """Whether label files hold lines as KITTI's: a word, then 14 numbers or with a score 15."""
    for path in files_in(labels, (".txt",))[:SNIFFED]:
        with contextlib.suppress(DataError):  # what cannot be read, the reader says
            words = read_text(path).strip().partition("\n")[0].split()
            if not words:
                continue
            start, rest = words[0], words[1:]
            return not is_number(start) and len(rest) in (14, 15) and all(map(is_number, rest))
    return False


def read_folder(root: Path, split: str | None = None) -> list[Sample]:
    """Read the samples of a KITTI folder in the order of the split, strictly.

    Args:
        root: holds ``image_2`` and ``label_2``.
        split: None or ``all`` for every label file; a name that ``manifest.tsv``
            (columns ``id`` and ``split``) uses; or a list of ids, one a line, in
            ``SPLIT.txt``, ``ImageSets/SPLIT.txt`` or a path of its own.

    Raises:
        DataError: a folder, a split, an image or a label is missing or malformed.
    """
    place = next(iter(find_files(root)), None)
    if place is None or place.root != root:
        raise DataError(f"{root / IMAGES}: no such folder; a KITTI folder has image_2 and label_2")
    labels = by_id(files_in(place.labels, (".txt",)), place.labels)
    ids = sorted(labels) if split is None or split == "all" else _split_ids(root, split)
    if not ids:
        raise DataError(f"{root}: split {split or 'all'!r} has no images")
    images = match_ids(ids, by_id(images_in(place.images), place.images))
    missing = [i for i in ids if i not in images]
    if missing:
        raise DataError(f"{place.images}: no image for {len(missing)} of {len(ids)} ids, the first is {missing[0]!r}")
    return [Sample(i, images[i], read_labels(place.labels / f"{i}.txt")) for i in ids]


def _split_ids(root: Path, split: str) -> list[str]:
    for listing in (root / f"{split}.txt", root / "ImageSets" / f"{split}.txt", Path(split)):
        if is_file(listing):
            return read_ids(listing)
    manifest = root / "manifest.tsv"
    if not manifest.is_file():
        raise DataError(
            f"{root}: split {split!r} is named by no {split}.txt, no ImageSets/{split}.txt and no manifest.tsv"
        )
    splits = _read_manifest(manifest)
    if split not in splits:
        raise DataError(f"{manifest}: no split {split!r}; it has {', '.join(sorted(splits))}")
    return splits[split]


def _read_manifest(path: Path) -> dict[str, list[str]]:
    """The ids of each split."""
    reader = csv.DictReader(read_text(path).splitlines(), delimiter="\t")
    if not {"id", "split"} <= set(reader.fieldnames or ()):
        raise DataError(f"{path}: needs the columns id and split")
    splits: dict[str, list[str]] = {}
    for row in reader:
        if row["id"] is None or row["split"] is None:
            raise DataError(f"{path}:{reader.line_num}: the row is too short for id and split")
        splits.setdefault(row["split"], []).append(slashes(row["id"]))
    return splits


# ------------------------------------------------------------ a whole data set


def root_of_list(path: Path) -> Path | None:
    """The KITTI folder that a list of ids belongs to: its own, or the one over ``ImageSets``."""
    roots = [path.parent, *([path.parent.parent] if path.parent.name == "ImageSets" else [])]
    return next((root for root in roots if any(not f.split for f in find_files(root))), None)


def read(path: Path, reading: ReadResult) -> Found:
    """Read a KITTI folder with all its splits, or one list of ids.

    Splits are named by folders, by ``ImageSets/*.txt``, by ``*.txt`` beside ``image_2`` that
    list known ids, and by ``manifest.tsv``. Without any, all labelled images are the split
    ``all``, and an image without label file, or a label file without image, is skipped. In a
    named split either is malformed. A box without area is skipped.

    Raises:
        DataError: a folder or list cannot be read, or what ``reading`` refuses.
    """
    root = root_of_list(path) if path.is_file() else path
    places = find_files(root) if root else []
    if not places:
        raise DataError(f"{path}: no KITTI folder; it has image_2 and label_2")
    found: dict[str, list[Sample]] = {}
    for place in places:
        listed = {path.stem: read_ids(path)} if path.is_file() else None
        found |= _read_place(place, listed, reading)
    return Found(found, types_by_frequency(s for some in found.values() for s in some))


def _read_place(place: KittiFiles, listed: dict[str, list[str]] | None, reading: ReadResult) -> dict[str, list[Sample]]:
    labels = by_id(files_in(place.labels, (".txt",), reading=reading), place.labels)
    own = by_id(images_in(place.images, reading), place.images)
    images = own | match_ids(labels.keys(), own)
    splits = listed or named_splits(place.root, images.keys() | labels.keys())
    if not splits or place.split:
        labeled = {images[i] for i in labels if i in images}
        everything = sorted({*labels, *(i for i, image in own.items() if image not in labeled)})
        splits = {place.split or "all": [i for i in everything if _both(i, place, images, labels, reading)]}
    samples: dict[str, Sample | None] = {}
    measured = 0
    for i in dict.fromkeys(i for ids in splits.values() for i in ids):
        samples[i] = None
        if i not in images:
            reading.refuse(place.images / i, 0, "a split lists it, there is no such image")
        elif i not in labels:
            reading.refuse(place.labels / f"{i}.txt", 0, "a split lists it, no such file")
        else:
            with reading.refusing(labels[i]):
                rows = _rows(labels[i], reading)
                measured += sum((r[2][2], *r[2][7:]) != UNKNOWN_3D for r in rows)
                samples[i] = Sample(i, images[i], _objects(_with_area(rows, labels[i], reading)))
    reading.note(measured, "3D boxes or angles, not read")
    if listed is None:
        reading.note(len(labels.keys() - samples.keys()), "label files in no split")
    return {name: [s for i in ids if (s := samples[i])] for name, ids in splits.items()}


def _both(
    i: str, place: KittiFiles, images: Mapping[str, Path], labels: Mapping[str, Path], reading: ReadResult
) -> bool:
    if i not in labels:
        reading.skip(images[i], 0, f"the image has no label file {place.labels / i}.txt")
    elif i not in images:
        reading.skip(labels[i], 0, f"there is no image of this label in {place.images}")
    return i in labels and i in images


def _with_area(rows: list[Row], path: Path, reading: ReadResult) -> list[tuple[str, list[float]]]:
    good = []
    for line, name, values in rows:
        x1, y1, x2, y2 = values[3:7]
        if x2 > x1 and y2 > y1:
            good.append((name, values))
        else:
            reading.skip(path, line, f"the box of {name} has no area")
    return good


def named_splits(root: Path, known: AbstractSet[str]) -> dict[str, list[str]]:
    """The ids of every split that a KITTI folder names.

    Args:
        root: holds ``image_2``.
        known: ids of images and labels; a text file beside ``image_2`` is a list of ids when
            its first line is one of them.
    """
    manifest = root / "manifest.tsv"
    splits = _read_manifest(manifest) if is_file(manifest) else {}
    if listings := subfolder(root, "ImageSets"):
        splits |= lists_in(listings)
    splits |= lists_in(root, known)
    return {name: list(dict.fromkeys(ids)) for name, ids in splits.items() if ids}


# -------------------------------------------------------------------- writing


def write(root: Path, new: NewDataSet, losses: Losses) -> None:
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
    for image in new.images:
        write_text(root / "label_2" / f"{image.name}.txt", _labels(image, words, losses))
    for name, ids in new.splits.items():
        if name != "all":
            write_text(root / "ImageSets" / f"{name}.txt", "".join(f"{i}\n" for i in ids))


def _labels(image: LabelledImage, words: Mapping[str, str], losses: Losses) -> str:
    objects = image.objects
    losses.add(image, objects.ignored, "the class of an ignored object: KITTI says DontCare")
    renamed = np.array([words[name] != name for name in objects.types], dtype=bool)
    losses.add(image, renamed, "blanks in a class name")
    return format_labels(
        Objects(
            tuple(
                "DontCare" if ignored else words[name]
                for name, ignored in zip(objects.types, objects.ignored.tolist(), strict=True)
            ),
            objects.xyxy,
            np.where(objects.ignored, np.float32(-1), objects.truncated),
            np.where(objects.ignored, -1, objects.occluded),
        )
    )
