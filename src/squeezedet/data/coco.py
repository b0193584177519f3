"""COCO: one JSON for each split, with images, annotations and categories."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from squeezedet.data.folders import SPLITS, files_in, find_image, is_file, is_folder, leads_out, slashes, subfolder
from squeezedet.data.sample import (
    LIMIT,
    LabelledSplits,
    Losses,
    Objects,
    ReadResult,
    Sample,
    boxes_only,
    is_dont_care,
    split_name,
    write_text,
)
from squeezedet.errors import DataError
from squeezedet.files import open_regular, read_text

IMAGES = "images"
ROBOFLOW = "_annotations.coco.json"
LISTS = ("images", "annotations", "categories")
SNIFFED_BYTES = 65_536
MAX_BYTES = 2_000_000_000
"""COCO's own largest file has 0.5 GB."""
DECIMALS = 3
Record = dict[str, Any]


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read or is none.
    """
    try:
        return json.loads(read_text(path, "label file", max_bytes=MAX_BYTES))
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no text, a huge number
        raise DataError(f"{path}: no JSON: {error}") from error


def read_lists(path: Path) -> Record:
    """A COCO file of labels: its images, annotations and categories.

    Raises:
        DataError: it cannot be read, is no JSON, or lacks one of the lists.
    """
    labels = read_json(path)
    if not isinstance(labels, dict) or not all(isinstance(labels.get(part), list) for part in LISTS):
        raise DataError(f"{path}: COCO labels hold the lists {', '.join(LISTS)}")
    return labels


# ------------------------------------------------------------------ where it is


def label_files(path: Path) -> dict[str, Path]:
    """The JSON file of each split; nothing if a folder has none.

    ``annotations/instances_*.json`` (other files of ``annotations`` only where there are
    none), ``train/_annotations.coco.json`` as Roboflow writes it, JSON files in the folder
    itself that look like COCO's, or such files in folders of splits (``train/labels.json``).
    ``instances_train2017`` is split ``train``, ``valid`` is ``val``; a single file that names
    no split is ``all``.

    Raises:
        DataError: two files are the same split.
    """
    if path.is_file():
        return {_split_of(path, alone=True): path}
    annotations = subfolder(path, "annotations")
    inside = _coco_files(annotations) if annotations else []
    folders = [f for name in SPLITS if (f := subfolder(path, name))]
    files = (
        [f for f in inside if f.name.startswith("instances_")]
        or inside
        or sorted(path.glob(f"*/{ROBOFLOW}"))
        or _coco_files(path)
        or [f for folder in dict.fromkeys(folders) for f in _coco_files(folder)]
    )
    splits: dict[str, Path] = {}
    for file in files:
        by_folder = file.parent if file.parent in folders else None
        name = split_name(by_folder.name) if by_folder else _split_of(file, len(files) == 1)
        if name in splits:
            raise DataError(f"{path}: {splits[name].name} and {file.name} are both split {name}")
        splits[name] = file
    return splits


def _coco_files(folder: Path) -> list[Path]:
    return [f for f in files_in(folder, (".json",), deep=False) if _looks_like_coco(f)]


def _split_of(file: Path, alone: bool) -> str:
    stem = file.parent.name if file.name == ROBOFLOW else file.name.removesuffix(".json")
    stem = re.sub(r"20\d\d$", "", stem.removeprefix("instances_")).strip("_-.") or stem
    known = re.fullmatch(r"(?i)(.*[_.-])?(train|training|valid|val|validation|test|all)", stem)
    if known:
        return split_name(known[2].lower())
    return "all" if alone and not file.name.startswith("instances_") else stem


def _looks_like_coco(file: Path) -> bool:
    """Whether a file begins as COCO's; Label Studio's notes.json has categories alone."""
    try:
        with open_regular(file) as opened:
            head = opened.read(SNIFFED_BYTES)
    except (OSError, DataError):
        return False
    return any(re.search(rb'"%s"\s*:\s*\[' % name, head) for name in (b"images", b"annotations"))


def _image_folders(file: Path) -> list[Path]:
    """Where the images of a JSON file may be, the likeliest first."""
    here = file.parent
    root = here.parent if here.name.lower() in ("annotations", "labels") else here
    stem = file.stem.removeprefix("instances_")
    short = re.sub(r"20\d\d$", "", stem)
    names = [IMAGES, stem, f"{IMAGES}/{stem}", short, f"{IMAGES}/{short}", f"{short}/{IMAGES}"]
    names += ["data", f"data/{short}", f"{short}/data", ".", "JPEGImages", "img", "imgs"]
    folders = [here, *(root / name for name in names), subfolder(root, IMAGES)]
    return [f for f in dict.fromkeys(folders) if f is not None and is_folder(f)]


# --------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class _Labels:
    """The three lists of one file, checked."""

    file: Path
    images: dict[Any, str]
    sizes: dict[Any, tuple[int, int]]
    categories: dict[Any, str]
    annotations: list[Any]


def read(path: Path, reading: ReadResult) -> LabelledSplits:
    """Read every COCO file of a folder, or the one file given.

    An image without annotations is a sample without objects. ``iscrowd`` becomes
    ``Objects.ignored``. A box without area is skipped; an annotation of an unknown image or
    category, or with a coordinate that is no finite number, is malformed, as are an image
    that does not exist and a ``file_name`` that leads out of the folder. JSON has no lines:
    messages number the annotations from 0.

    Raises:
        DataError: a file cannot be read or lacks a list, or what ``reading`` refuses.
    """
    files = label_files(path)
    if not files:
        raise DataError(f"{path}: no COCO labels; give the JSON file itself")
    parts = {split: _read_labels(file) for split, file in files.items()}
    categories: dict[Any, str] = {}
    for part in parts.values():
        for number, name in part.categories.items():
            if categories.setdefault(number, name) != name:
                raise DataError(
                    f"{part.file}: category {number} is {name!r} here and {categories[number]!r} in another split"
                )
    splits = {split: _samples(part, reading) for split, part in parts.items()}
    ordered = sorted(categories, key=lambda k: (isinstance(k, str), k))
    return LabelledSplits(splits, list(dict.fromkeys(categories[k] for k in ordered)))


def _read_labels(path: Path) -> _Labels:
    labels = read_lists(path)
    images = fields_by_id(labels["images"], "file_name", f"{path}: image")
    sizes = {record["id"]: (record.get("width"), record.get("height")) for record in labels["images"]}
    if len(set(images.values())) < len(images):
        raise DataError(f"{path}: two images have the same file_name; their labels must be one's")
    return _Labels(
        path,
        images,
        {key: size for key, size in sizes.items() if all(type(v) is int and v > 0 for v in size)},
        fields_by_id(labels["categories"], "name", f"{path}: category"),
        labels["annotations"],
    )


def fields_by_id(records: list[Any], field: str, what: str) -> dict[Any, str]:
    """Id -> field of a list of records."""
    table: dict[Any, str] = {}
    for k, record in enumerate(records):
        key = record.get("id") if isinstance(record, dict) else None
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise DataError(f"{what} {k} has no id")
        text = record.get(field)
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{what} {k} has no {field}")
        if key in table:
            raise DataError(f"{what} {k} has the id {key!r} of another one")
        table[key] = text.strip()
    return table


def _samples(labels: _Labels, reading: ReadResult) -> list[Sample]:
    rows: dict[Any, list[tuple[str, list[float], bool]]] = {key: [] for key in labels.images}
    beyond = 0
    known = {"image_id": labels.images, "category_id": labels.categories}
    for k, record in enumerate(labels.annotations):
        with reading.refusing(labels.file):
            box = box_of(record, f"{labels.file}: annotation {k}", known)
            name = labels.categories[record["category_id"]]
            beyond += bool(record.get("segmentation") or record.get("keypoints"))
            if box[2] <= 0 or box[3] <= 0:
                reading.skip(labels.file, 0, f"annotation {k}: the box of {name} has no area")
            else:
                rows[record["image_id"]].append((name, box, bool(record.get("iscrowd"))))
    reading.note(beyond, "annotations that say more than a box (masks, key points)")
    folders = _image_folders(labels.file)
    samples = []
    taken: dict[Path, str] = {}
    for key, name in labels.images.items():
        image = _image(name, folders, labels.file, reading)
        if image is not None and taken.setdefault(image, name) != name:
            reading.refuse(labels.file, 0, f"{taken[image]!r} and {name!r} are one file, {image}")
        elif image is not None:
            size = labels.sizes.get(key)
            samples.append(Sample(image.stem, image, _objects(rows[key]), size))
    return samples


def box_of(record: Any, where: str, known: Mapping[str, Collection[Any]]) -> list[float]:
    """The bbox of a record (x, y, width, height), when it is sound.

    Args:
        record: an annotation or a result.
        where: its place, for the error.
        known: ``image_id`` and ``category_id`` -> the ids that there are; a field that is not in it may be any.

    Raises:
        DataError: it is not.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: is no record")
    for field in ("image_id", "category_id"):
        key = record.get(field)
        if key is None or (
            field in known and (isinstance(key, bool) or not isinstance(key, int | str) or key not in known[field])
        ):
            raise DataError(f"{where}: " + (f"there is no {field} {key!r}" if field in record else f"has no {field}"))
    box = record.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(f"{where}: has no bbox of x, y, width, height")
    for value in box:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"{where}: {value!r} is not a number")
        if not -LIMIT <= value <= LIMIT:
            beyond = isinstance(value, int) or math.isfinite(value)
            raise DataError(f"{where}: " + (f"a coordinate is beyond {LIMIT}" if beyond else f"{value} is not finite"))
    if box[2] < 0 or box[3] < 0:
        raise DataError(f"{where}: the box has a negative size, {box[2]:g} x {box[3]:g}")
    return [float(value) for value in box]


def _image(name: str, folders: list[Path], file: Path, reading: ReadResult) -> Path | None:
    """The image of a ``file_name``; None when it is refused. It never leads out of the folders."""
    if leads_out(name):
        up = ".." in slashes(name).split("/")
        image = None if up else find_image(name, folders)
        if image is None:
            reading.refuse(file, 0, f"file_name {name!r} leads out of the folder of images")
        else:
            reading.note(1, "file names of another place, found by their end in the folders here")
        return image
    for k, folder in enumerate(folders):
        path = folder / slashes(name)
        if is_file(path):
            folders.insert(0, folders.pop(k))  # the next one is most likely there too
            return path
    reading.refuse(file, 0, f"there is no image {name!r} in {folders[0]} or beside it")
    return None


def _objects(rows: list[tuple[str, list[float], bool]]) -> Objects:
    xywh = np.array([box for _, box, _ in rows], np.float64).reshape(-1, 4)
    xyxy = np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])
    return boxes_only([name for name, _, _ in rows], xyxy, np.array([crowd for _, _, crowd in rows], dtype=bool))


# -------------------------------------------------------------------- writing


def write(root: Path, new: LabelledSplits, losses: Losses, file_names: Mapping[str, str] | None = None) -> None:
    """Write ``annotations/instances_SPLIT.json`` beside the folder ``images``.

    Ids count from 1; coordinates have at most 3 decimals. DontCare is a category whose
    annotations are all crowds. ``file_names`` are by the ids of samples; those of the files in ``images`` by default.

    Raises:
        OSError: the place cannot be written.
    """
    numbers = {sample.id: k for k, sample in enumerate(new.samples(), start=1)}
    categories = {name: k for k, name in enumerate(new.types, start=1)}
    for split, samples in new.splits.items():
        images: list[Record] = []
        annotations: list[Record] = []
        for sample in samples:
            width, height = sample.size or (0, 0)
            number = numbers[sample.id]
            name = file_names[sample.id] if file_names else sample.image.name
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            annotations += _annotations(sample.objects, number, categories, len(annotations))
        labels = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": k, "name": name} for name, k in categories.items()],
        }
        write_text(root / "annotations" / f"instances_{split}.json", json.dumps(labels, ensure_ascii=False))
    for sample in new.samples():
        losses.add(sample, sample.objects.truncated > 0, "truncation is not in COCO")
        losses.add(sample, sample.objects.occluded > 0, "occlusion is not in COCO")


def _annotations(objects: Objects, number: int, categories: Mapping[str, int], before: int) -> list[Record]:
    records = []
    for k, (name, box, ignored) in enumerate(
        zip(objects.types, objects.xyxy.tolist(), objects.ignored.tolist(), strict=True), start=1
    ):
        x, y, x2, y2 = (round(v, DECIMALS) for v in box)
        width, height = round(x2 - x, DECIMALS), round(y2 - y, DECIMALS)
        records.append(
            {
                "id": before + k,
                "image_id": number,
                "category_id": categories[name],
                "bbox": [x, y, width, height],
                "area": round(width * height, DECIMALS),
                "iscrowd": int(ignored or is_dont_care(name)),
                "segmentation": [],
            }
        )
    return records
