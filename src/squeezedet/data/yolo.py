"""YOLO as Ultralytics lays it out: ``data.yaml``, ``images`` and ``labels`` side by side.

A label file has a line for each object: class index, centre x, centre y, width and height
as shares of the upright image. A line of more coordinates is a polygon; its box is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from json import dumps
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import area, clip, cxcywh_to_xyxy, xyxy_to_cxcywh
from squeezedet.data.image_size import image_size
from squeezedet.data.reading import Found, Reading, number
from squeezedet.data.sample import Objects, Sample, is_dont_care
from squeezedet.data.writing import LabelledImage, Losses, NewDataSet, write_text
from squeezedet.data.yolo_config import IMAGES, NAME_FILES, read_config
from squeezedet.errors import DataError
from squeezedet.files import read_text
from squeezedet.media.images import SUFFIXES

TOLERANCE = 0.01
"""How far outside 0 to 1 a coordinate may lie: what other tools round."""


# --------------------------------------------------------------------- reading


def read(path: Path, reading: Reading) -> Found:
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


def _images_in(place: Path, reading: Reading) -> list[Path]:
    if place.is_file():
        return list(_listed_images(place, reading))
    images = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    labels = {label_path(image) for image in images}
    for folder in sorted({label_path(place / "x.jpg").parent, *(p.parent for p in labels)}):
        for label in sorted(folder.glob("*.txt")):
            if label not in labels and label.name not in NAME_FILES:
                reading.skip(label, 0, f"there is no image of this label in {place}")
    return images


def _listed_images(listing: Path, reading: Reading) -> Iterable[Path]:
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
    image: Path, names: tuple[str, ...], reading: Reading, unlabelled: list[Path]
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


def _rows(label: Path, text: str, classes: int, reading: Reading) -> list[tuple[int, list[float]]]:
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
