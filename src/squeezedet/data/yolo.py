"""YOLO as Ultralytics lays it out: ``data.yaml``, ``images`` and ``labels`` side by side.

A label file has a line for each object: class index, centre x, centre y, width and height
as shares of the upright image. A line of more coordinates is a polygon; its box is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import area, clip, cxcywh_to_xyxy, xyxy_to_cxcywh
from squeezedet.data.sample import (
    Found,
    Objects,
    ReadResult,
    Sample,
    image_size,
    is_dont_care,
    number,
    split_name,
)
from squeezedet.data.writing import LabelledImage, Losses, NewDataSet, write_text
from squeezedet.data.yaml_subset import Value, read_yaml
from squeezedet.errors import DataError
from squeezedet.files import IMAGE_SUFFIXES, read_text

# ---- yolo_config: What a YOLO data set says of itself: its class names, and the images of each s

IMAGES = "images"
CONFIG_SUFFIXES = (".yaml", ".yml")
SPLITS = ("train", "val", "valid", "test", "minival", "all")
NAME_FILES = ("classes.txt", "obj.names", "classes.names", "labels/classes.txt")


@dataclass(frozen=True, slots=True)
class Config:
    """What a data file says.

    Attributes:
        names: class names; index = class index of the labels.
        splits: split -> folders of images, or text files that list images.
    """

    names: tuple[str, ...]
    splits: dict[str, tuple[Path, ...]]


def is_yolo(path: Path) -> bool:
    """Whether a folder has a YOLO data file, or ``images``, ``labels`` and the class names."""
    return bool(_data_files(path)) or bool(_names_file(path) and _image_folders(path))


def _data_files(path: Path) -> list[Path]:
    files = [f for suffix in CONFIG_SUFFIXES for f in sorted(path.glob(f"*{suffix}"))]
    return [f for f in files if f.is_file() and _looks_like_yolo(f)]


def _looks_like_yolo(file: Path) -> bool:
    try:
        text = read_text(file)
    except DataError:
        return False
    return bool(
        re.search(r"^names\s*:", text, re.M)
        and re.search(rf"^({'|'.join(SPLITS)})\s*:", text, re.M)
    )


def _names_file(path: Path) -> Path | None:
    return next((path / name for name in NAME_FILES if (path / name).is_file()), None)


def _image_folders(path: Path) -> dict[str, tuple[Path, ...]]:
    """Splits by folders: ``images/train`` or ``train/images``; else ``images`` is ``all``."""
    splits: dict[str, tuple[Path, ...]] = {}
    for name in SPLITS:
        for folder in (path / IMAGES / name, path / name / IMAGES):
            if folder.is_dir():
                splits[split_name(name)] = (folder,)
    if not splits and (path / IMAGES).is_dir() and (path / "labels").is_dir():
        splits["all"] = (path / IMAGES,)
    return splits


def read_config(path: Path, reading: ReadResult) -> Config:
    """The class names and splits of a folder, a data file or a list of images.

    Raises:
        DataError: there is none or more than one data file, or it is malformed.
    """
    if path.is_file():
        return _of_yaml(path, reading) if path.suffix != ".txt" else _of_list(path, reading)
    files = _data_files(path)
    preferred = [f for f in files if f.stem in ("data", "dataset")]
    if len(files) > 1 and len(preferred) != 1:
        raise DataError(f"{path}: {', '.join(f.name for f in files)}: give the one that is meant")
    if files:
        return _of_yaml((preferred or files)[0], reading)
    names = _names_file(path)
    if names is None:
        raise DataError(f"{path}: no data.yaml and no classes.txt that names the classes")
    return Config(_listed_names(names), _image_folders(path))


def _of_list(path: Path, reading: ReadResult) -> Config:
    """A list of images: the names come from the data file or names beside it."""
    for folder in (path.parent, path.parent.parent):
        if _data_files(folder):
            names = read_config(folder, reading).names
        elif found := _names_file(folder):
            names = _listed_names(found)
        else:
            continue
        return Config(names, {split_name(path.stem): (path,)})
    raise DataError(
        f"{path}: a list of images needs a data.yaml or classes.txt beside it for the class names"
    )


def _listed_names(path: Path) -> tuple[str, ...]:
    names = [line.strip() for line in read_text(path).splitlines()]
    while names and not names[-1]:
        names.pop()
    return _checked(names, path)


def _of_yaml(path: Path, reading: ReadResult) -> Config:
    config = read_yaml(path)
    names = _names(config.get("names", ""), path)
    count = config.get("nc", str(len(names)))
    if count != str(len(names)):
        raise DataError(f"{path}: nc is {count}, but there are {len(names)} names")
    base = _base(config.get("path", ""), path, reading)
    splits = {}
    for key, value in config.items():
        places = [value] if isinstance(value, str) else value
        listed = isinstance(value, str) and value.endswith(".txt") and key not in ("path", "names")
        if value and isinstance(places, list) and (key in SPLITS or listed):
            splits[split_name(key)] = tuple(_place(p, base, f"{path}: {key}") for p in places)
    if not splits:
        raise DataError(f"{path}: names no split; it needs train: and val: with folders of images")
    return Config(names, splits)


def _names(value: Value, path: Path) -> tuple[str, ...]:
    if isinstance(value, dict):
        expected = [str(k) for k in range(len(value))]
        if sorted(value) != sorted(expected):
            raise DataError(f"{path}: the names have the numbers {', '.join(value)}, not 0, 1, ...")
        value = [value[k] for k in expected]
    if not isinstance(value, list) or not value:
        raise DataError(f"{path}: names is no list of class names")
    return _checked(value, path)


def _checked(names: Sequence[Value], path: Path) -> tuple[str, ...]:
    good = [name.strip() for name in names if isinstance(name, str) and name.strip()]
    if len(good) < len(names) or not good:
        raise DataError(f"{path}: a class has no name")
    if len(set(good)) < len(good):
        twice = next(name for name in good if good.count(name) > 1)
        raise DataError(f"{path}: two classes have the name {twice!r}")
    return tuple(good)


def _base(value: Value, path: Path, reading: ReadResult) -> Path:
    """The folder that splits are relative to: ``path`` of the data file, itself relative to it."""
    if not isinstance(value, str):
        raise DataError(f"{path}: path is no folder")
    base = path.parent / value
    if base.is_dir():
        return base
    reading.say(f"{path}: there is no folder {value!r}; the file's own folder is taken")
    return path.parent


def _place(value: Value, base: Path, where: str) -> Path:
    if not isinstance(value, str) or not value:
        raise DataError(f"{where} is no folder of images")
    # Roboflow writes ../train/images and means train/images beside the file.
    nearer = re.sub(r"^(\.\./)+", "", value)
    for place in (base / value, base / nearer, base.parent / nearer):
        if place.exists():
            return place
    raise DataError(f"{where}: no such folder or list: {base / value}")


# ---- yolo: YOLO as Ultralytics lays it out: ``data.yaml``, ``images`` and ``labels`` side by sid

TOLERANCE = 0.01
"""How far outside 0 to 1 a coordinate may lie: what other tools round."""


# --------------------------------------------------------------------- reading


def read(path: Path, reading: ReadResult) -> Found:
    """Read a YOLO data set: a folder, its data file, or a list of images.

    An image without a label file is a sample without objects, as YOLO has it; but where not
    one image has a label file, the place is wrong. A label file without image, and a box
    without area, is skipped. Malformed are a class index that no name has, a coordinate that
    is no finite number or lies outside 0 to 1, and a listed image that is not there.

    Raises:
        DataError: a file cannot be read, no label file at all, or what ``reading`` refuses.
    """
    config = read_config(path, reading)
    known: dict[Path, Sample | None] = {}
    unlabelled: list[Path] = []
    splits: dict[str, list[Sample]] = {}
    for split, places in config.splits.items():
        images = dict.fromkeys(i for place in places for i in _images_in(place, reading))
        for image in images:
            if image not in known:
                known[image] = _sample(image, config.names, reading, unlabelled)
        splits[split] = [sample for i in images if (sample := known[i])]
    if known and len(unlabelled) == len(known):
        raise DataError(
            f"{path}: not one of {len(known)} images has a label file; the first would be "
            f"{label_path(unlabelled[0])}"
        )
    reading.note(len(unlabelled), "images without label file, read as without objects")
    return Found(splits, config.names)


def label_path(image: Path) -> Path:
    """The label file of an image: the last ``images`` of its path becomes ``labels``."""
    parts = list(image.with_suffix(".txt").parts)
    for k in range(len(parts) - 2, -1, -1):
        if parts[k] == IMAGES:
            parts[k] = "labels"
            return Path(*parts)
    return image.with_suffix(".txt")


def _images_in(place: Path, reading: ReadResult) -> list[Path]:
    if place.is_file():
        return list(_listed_images(place, reading))
    images = sorted(
        p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
    )
    labels = {label_path(image) for image in images}
    for folder in sorted({label_path(place / "x.jpg").parent, *(p.parent for p in labels)}):
        for label in sorted(folder.glob("*.txt")):
            if label not in labels and label.name not in NAME_FILES:
                reading.skip(label, 0, f"there is no image of this label in {place}")
    return images


def _listed_images(listing: Path, reading: ReadResult) -> Iterable[Path]:
    for line, text in enumerate(read_text(listing).splitlines(), start=1):
        name = text.strip()
        if not name:
            continue
        places = [listing.parent / name, listing.parent.parent / name]
        image = next((place for place in places if place.is_file()), None)
        if image is None:
            reading.refuse(listing, line, f"there is no image {name}")
        else:
            yield image


def _sample(
    image: Path, names: tuple[str, ...], reading: ReadResult, unlabelled: list[Path]
) -> Sample | None:
    label = label_path(image)
    if not label.is_file():
        unlabelled.append(image)
    sample = None
    with reading.refusing(label):
        text = read_text(label) if label.is_file() else ""
        rows = _rows(label, text, len(names), reading)
        types = tuple(names[class_id] for class_id, _ in rows)
        shares = np.array([box for _, box in rows], np.float64).reshape(-1, 4)
        size = image_size(image) if rows else (1, 1)
        xyxy = cxcywh_to_xyxy(shares * np.array([*size, *size])).astype(np.float32)
        unknown = np.array([-1 if is_dont_care(t) else 0 for t in types], np.int64)
        objects = Objects(types, xyxy, unknown.astype(np.float32), unknown)
        sample = Sample(image.stem, image, objects)
    return sample


def _rows(
    label: Path, text: str, classes: int, reading: ReadResult
) -> list[tuple[int, list[float]]]:
    """Class index and shares of each box that has an area."""
    rows = []
    for line, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        with reading.refusing(label, line):
            class_id, box, is_polygon = _parse_line(row.split(), classes, f"{label}:{line}")
            reading.note(is_polygon, "polygons, read as the boxes around them")
            if box[2] and box[3]:
                rows.append((class_id, box))
            else:
                reading.skip(label, line, "the box has no area")
    return rows


def _parse_line(fields: list[str], classes: int, where: str) -> tuple[int, list[float], bool]:
    """Class index; centre, width and height as shares of the image; whether it was a polygon."""
    is_polygon = len(fields) >= 7 and len(fields) % 2 == 1
    if len(fields) != 5 and not is_polygon:
        raise DataError(f"{where}: a label has 5 fields, this line has {len(fields)}")
    index = number(fields[0], where)
    if not index.is_integer() or not 0 <= index < classes:
        raise DataError(f"{where}: class {fields[0]} has no name; there are {classes}, from 0")
    values = [number(field, where) for field in fields[1:]]
    for value in values:
        if not -TOLERANCE <= value <= 1 + TOLERANCE:
            raise DataError(f"{where}: {value:g} is no share of the image, from 0 to 1")
    if is_polygon:
        x, y = values[::2], values[1::2]
        corners = np.array([min(x), min(y), max(x), max(y)])
        return int(index), xyxy_to_cxcywh(corners).tolist(), True
    if values[2] < 0 or values[3] < 0:
        raise DataError(f"{where}: the box has a negative size")
    return int(index), values, False


# -------------------------------------------------------------------- writing


def write(root: Path, new: NewDataSet, losses: Losses) -> None:
    """Write ``data.yaml``, ``SPLIT.txt`` and ``labels`` beside the folder ``images``.

    Lists keep the order of the images and may share some. YOLO has no area that counts
    neither way: DontCare is a class of that name, and ignored objects become one.

    Raises:
        OSError: the place cannot be written.
    """
    names = list(new.types)
    if any(i.objects.ignored.any() for i in new.images) and not any(map(is_dont_care, names)):
        names.append("DontCare")
    dont_care = next((k for k, name in enumerate(names) if is_dont_care(name)), -1)
    numbers = {name: k for k, name in enumerate(names)}
    for image in new.images:
        text = _labels(image, numbers, dont_care, losses)
        write_text(root / "labels" / f"{image.name}.txt", text)
    files = {image.name: image.file for image in new.images}
    for split, members in new.splits.items():
        listed = "".join(f"./{IMAGES}/{files[name]}\n" for name in members)
        write_text(root / f"{split}.txt", listed)
    lines = [f"{split}: {split}.txt" for split in new.splits]
    lines += ["names:", *(f"  {k}: {dumps(n, ensure_ascii=False)}" for k, n in enumerate(names))]
    write_text(root / "data.yaml", "\n".join(lines) + "\n")


def _labels(
    image: LabelledImage, numbers: Mapping[str, int], dont_care: int, losses: Losses
) -> str:
    objects = image.objects
    losses.add(image, objects.truncated > 0, "truncation is not in YOLO")
    losses.add(image, objects.occluded > 0, "occlusion is not in YOLO")
    losses.add(image, objects.ignored, "the class of an ignored object: a class DontCare says so")
    size = np.array([image.width, image.height] * 2, np.float64)
    whole = objects.xyxy.astype(np.float64)
    shares = xyxy_to_cxcywh(whole) / size
    outside: NDArray[np.bool_] = np.logical_or.reduce((shares < 0) | (shares > 1), axis=1)
    cut = clip(whole, image.width, image.height)
    gone = outside & (area(cut) <= 0)
    losses.add(image, gone, "the box, all of it outside the image")
    losses.add(image, outside & ~gone, "what of the box is outside the image")
    shares = np.where(outside[:, None], xyxy_to_cxcywh(cut) / size, shares)
    lines = [
        f"{dont_care if ignored else numbers[name]} " + " ".join(f"{v:.9g}" for v in row)
        for name, ignored, row, drop in zip(
            objects.types, objects.ignored, shares.tolist(), gone, strict=True
        )
        if not drop
    ]
    return "".join(f"{line}\n" for line in lines)
