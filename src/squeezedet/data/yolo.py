"""YOLO: a line of class index, center and size for each object, in a text file for each image.

Center x, center y, width and height are shares of the upright image. A line of more
coordinates is a polygon, and its box is taken; or key points follow the box, where the data
file has ``kpt_shape``. The layouts of Ultralytics and Roboflow (``data.yaml``, ``images`` and
``labels``), of darknet and CVAT (``obj.data``, lists, labels beside the images), of labelImg,
Label Studio and FiftyOne (``classes.txt``, ``obj.names``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import area, clip, cxcywh_to_xyxy, xyxy_to_cxcywh
from squeezedet.data.folders import (
    SPLITS,
    ends,
    exists,
    files_in,
    find_image,
    images_in,
    is_file,
    is_folder,
    leads_out,
    slashes,
    subfolder,
)
from squeezedet.data.sample import (
    DONT_CARE,
    LabelledSplits,
    Losses,
    ReadResult,
    Sample,
    boxes_only,
    image_size,
    is_dont_care,
    is_number,
    number,
    split_name,
    write_text,
)
from squeezedet.errors import DataError
from squeezedet.files import read_text

IMAGES = "images"
IMAGE_FOLDERS = ("images", "jpegimages", "data", "img")
"""Folders of images, in any case, whose labels lie in a folder ``labels`` in their place."""
CONFIG_SUFFIXES = (".yaml", ".yml")
KEYS = (*SPLITS, "minival", "all")
"""Keys of data files that name a split."""
NAMES = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt", "labels.txt")
"""Files of class names, one a line; also others that end in ``.names``."""
KEY_POINTS = "; key points need kpt_shape in the data file"
MAX_YAML_BYTES = 1_000_000
MAX_YAML_DEPTH = 16
Value = str | list["Value"] | dict[str, "Value"]
TOLERANCE = 0.01
"""How far outside 0 to 1 a coordinate may lie: what other tools round."""


@dataclass(frozen=True, slots=True)
class Config:
    """What a data set says of itself.

    Attributes:
        names: class names; index = class index of the labels.
        splits: split -> folders of images, or text files that list images.
        key_points: numbers that follow a box in a label, 0 for none.
    """

    names: tuple[str, ...]
    splits: Mapping[str, tuple[Path, ...]]
    key_points: int = 0


# --------------------------------------------------------------- names and splits


def is_yolo(path: Path) -> bool:
    """Whether a folder has a YOLO data file, or class names and folders of images."""
    return has_data_file(path) or bool(_name_files(path) and _splits_in(path))


def has_data_file(path: Path) -> bool:
    """Whether a folder has a ``data.yaml`` or an ``obj.data``."""
    return bool(_data_files(path))


def _data_files(path: Path) -> list[Path]:
    files = files_in(path, (*CONFIG_SUFFIXES, ".data"), deep=False)
    return [f for f in files if _looks_like_yolo(f)]


def _looks_like_yolo(file: Path) -> bool:
    try:
        text = read_text(file)
    except DataError:
        return False
    splits = "|".join(KEYS)
    if file.suffix.lower() == ".data":
        return bool(re.search(rf"^\s*({splits}|names)\s*=", text, re.M))
    return bool(
        re.search(r"^[\"']?(names|nc)[\"']?\s*:", text, re.M) and re.search(rf"^[\"']?({splits})[\"']?\s*:", text, re.M)
    )


def _name_files(path: Path) -> list[Path]:
    """The files of class names in a folder, in ``labels`` and in the folders of splits."""
    folders = [path, *filter(None, (subfolder(path, "labels"), subfolder(path, "data")))]
    for folder in (*folders, *filter(None, [subfolder(path, IMAGES)])):
        folders += [f for name in KEYS if (f := subfolder(folder, name))]
    folders += [f for folder in folders[1:] if (f := subfolder(folder, "labels"))]
    found = []
    for folder in dict.fromkeys(folders):
        for file in files_in(folder, (".txt", ".names", ".labels"), deep=False):
            if file.name.lower() in NAMES or file.suffix.lower() == ".names":
                found.append(file)
        if is_file(folder / "_darknet.labels"):
            found.append(folder / "_darknet.labels")
    return list(dict.fromkeys(found))


def _names_of(files: Sequence[Path]) -> tuple[str, ...]:
    """The class names that all of these files say.

    Raises:
        DataError: two say different names.
    """
    names = {file: _checked(read_text(file).rstrip().splitlines(), file) for file in files}
    first, *others = files
    for other in others:
        if names[other] != names[first]:
            raise DataError(f"{first} and {other} name different classes; remove the wrong one")
    return names[first]


def _splits_in(path: Path) -> dict[str, tuple[Path, ...]]:
    """Splits by folders: ``images/train``, ``train/images`` or ``train``; else all images.

    Without such folders a list that names them (``train.txt``, FiftyOne's ``images.txt``).
    """
    splits: dict[str, tuple[Path, ...]] = {}
    own = [f for name in IMAGE_FOLDERS if (f := subfolder(path, name))]
    for name in KEYS:
        folders = [f for images in own if (f := subfolder(images, name))]
        if split := subfolder(path, name):
            folders.append(subfolder(split, *IMAGE_FOLDERS) or split)
        folders = [folder for folder in folders if images_in(folder)]
        if folders:
            splits.setdefault(split_name(name), (folders[0],))
    if splits:
        return splits
    lists = [f for f in files_in(path, (".txt",), deep=False) if f.stem.lower() in KEYS]
    lists = [f for f in lists if f.name.lower() not in NAMES]
    if lists:
        return {split_name(f.stem): (f,) for f in lists}
    folder = next((f for f in own if images_in(f)), None) or (path if images_in(path) else None)
    return {"all": (folder,)} if folder else {}


def read_config(path: Path, reading: ReadResult) -> Config:
    """The class names and splits of a folder, a data file or a list of images.

    Raises:
        DataError: there is none or more than one data file, or it is malformed.
    """
    if is_file(path):
        return _of_list(path, reading) if path.suffix.lower() == ".txt" else _of_file(path, reading)
    files = _data_files(path)
    preferred = [f for f in files if f.stem.lower() in ("data", "dataset")]
    if len(files) > 1 and len(preferred) != 1:
        raise DataError(f"{path}: {', '.join(f.name for f in files)}: give the one that is meant")
    if files:
        return read_config((preferred or files)[0], reading)
    names = _name_files(path)
    if not names:
        raise DataError(f"{path}: no data.yaml and no classes.txt that names the classes")
    return Config(_names_of(names), _splits_in(path))


def _of_list(path: Path, reading: ReadResult) -> Config:
    """A list of images: the names come from the data file or names beside it."""
    split = {split_name(path.stem): (path,)}
    for folder in (path.parent, path.parent.parent):
        if _data_files(folder):
            config = read_config(folder, reading)
            return Config(config.names, split, config.key_points)
        if found := _name_files(folder):
            return Config(_names_of(found), split)
    raise DataError(f"{path}: a list of images needs a data.yaml or classes.txt beside it for the class names")


def _read_darknet(path: Path) -> dict[str, Value]:
    """Darknet's ``obj.data``: ``names = data/obj.names``, ``train = data/train.txt``."""
    lines = [line.split("=", 1) for line in read_text(path).splitlines() if "=" in line]
    config: dict[str, Value] = {key.strip().lower(): value.strip() for key, value in lines}
    named = str(config.get("names", ""))
    file = find_image(named, [path.parent, path.parent.parent]) if named else None
    files = [file] if file else _name_files(path.parent)
    if not files:
        raise DataError(f"{path}: there is no file of class names {named!r}")
    return {key: value for key, value in config.items() if key in KEYS} | {"names": list(_names_of(files))}


def _of_file(path: Path, reading: ReadResult) -> Config:
    """What a ``data.yaml`` or an ``obj.data`` says."""
    darknet = path.suffix.lower() == ".data"
    config = _read_darknet(path) if darknet else read_yaml(path)
    names = _names(config, path)
    count = config.get("nc", str(len(names)))
    if count not in ("", str(len(names))):
        raise DataError(f"{path}: nc is {count}, but there are {len(names)} names")
    folders = [path.parent, path.parent.parent] if darknet else _bases(config.get("path", ""), path, reading)
    splits = {}
    for key, value in config.items():
        places = [value] if isinstance(value, str) else value
        listed = isinstance(value, str) and value.endswith(".txt") and key not in ("path", "names")
        if not places or places in ([""], ["null"], ["~"]) or not (key in KEYS or listed):
            continue
        if not isinstance(places, list):
            raise DataError(f"{path}: {key} is no folder of images")
        found = [_place(place, folders, f"{path}: {key}", anywhere=darknet) for place in places if place]
        if all(found):
            splits[split_name(key)] = tuple(place for place in found if place)
        else:
            lost = f"{path}: {key}: no such folder or list: {folders[0]}/{places[found.index(None)]}"
            if split_name(key) != "test":
                raise DataError(lost)
            reading.say(f"split test is not there: {lost}")
    if not splits:
        raise DataError(f"{path}: names no split; it needs train: and val: with folders of images")
    return Config(names, splits, _key_points(config.get("kpt_shape", ""), path))


def _key_points(value: Value, path: Path) -> int:
    """``kpt_shape: [17, 3]``: so many key points of so many numbers each."""
    if not value:
        return 0
    if isinstance(value, list) and len(value) == 2:
        count, each = (int(v) if isinstance(v, str) and v.isdigit() else 0 for v in value)
        if 0 < count < 10_000 and each in (2, 3):
            return count * each
    raise DataError(f"{path}: kpt_shape is not [number of key points, 2 or 3]")


def _names(config: Mapping[str, Value], path: Path) -> tuple[str, ...]:
    value = config.get("names", "")
    if not value and isinstance(count := config.get("nc", ""), str) and count.isdigit():
        value = [f"class{k}" for k in range(min(int(count), 10_000))]
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


def _bases(value: Value, path: Path, reading: ReadResult) -> list[Path]:
    """The folders that splits are relative to: ``path`` of the data file, then its own."""
    if not isinstance(value, str):
        raise DataError(f"{path}: path is no folder")
    if not value:
        return [path.parent]
    base = path.parent / slashes(value)
    if is_folder(base) and not re.match(r"[A-Za-z]:", value):
        return [base, path.parent]
    reading.say(f"{path}: there is no folder {value!r}; the file's own folder is taken")
    return [path.parent]


def _place(value: Value, folders: Sequence[Path], where: str, anywhere: bool) -> Path | None:
    """The folder or list that a split names; None if there is none.

    Of a path of another machine, and of any path if it may be ``anywhere``, the longest end that is here counts.
    """
    if not isinstance(value, str):
        raise DataError(f"{where} is no folder of images")
    name = slashes(value)
    # Roboflow writes ../train/images and means train/images beside the file.
    nearer = re.sub(r"^(\.\./)+", "", name)
    places = [folder / n for folder in folders for n in (name, nearer)]
    places += [folders[0].parent / nearer]
    if anywhere or leads_out(value):
        places += [folder / end for end in ends(value) for folder in folders]
    return next((place for place in places if exists(place)), None)


# ------------------------------------------------------------------ data.yaml


def read_yaml(path: Path) -> dict[str, Value]:
    """Read a YAML file whose top is a mapping.

    ``no`` is a class name, not False: scalars stay text. Tags are passed over, aliases are
    the values that they stand for.

    Raises:
        DataError: it cannot be read, is no YAML, or is nested without end; names the line.
    """
    import yaml

    text = read_text(path, "data file", max_bytes=MAX_YAML_BYTES)
    base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

    class Loader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            mapping = super().construct_mapping(node, deep)
            seen = {"<<"}
            for key, _ in node.value:
                if key.value in seen:
                    problem = "a merge (<<) is not read" if key.value == "<<" else f"{key.value[:80]!r} is there twice"
                    raise yaml.MarkedYAMLError(None, None, problem, key.start_mark)
                seen.add(key.value)
            return mapping

    depth = 0
    event: Any
    try:
        for event in yaml.parse(text, Loader=base):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_YAML_DEPTH:
                raise DataError(f"{path}:{event.start_mark.line + 1}: more than {MAX_YAML_DEPTH} levels")
        value = yaml.load(text, Loader=Loader)  # noqa: S506 (makes texts, lists and mappings alone)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise DataError(f"{where}: no YAML: {problem}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise DataError(f"{path}: the file holds no 'key: value' lines")
    return value


# --------------------------------------------------------------------- reading


def read(path: Path, reading: ReadResult) -> LabelledSplits:
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
                known[image] = _sample(image, config, reading, unlabelled)
        splits[split] = [sample for i in images if (sample := known[i])]
    if known and len(unlabelled) == len(known):
        raise DataError(
            f"{path}: not one of {len(known)} images has a label file; the first would be {label_path(unlabelled[0])}"
        )
    reading.note(len(unlabelled), "images without label file, read as without objects")
    return LabelledSplits(splits, config.names)


def label_path(image: Path) -> Path:
    """The label file of an image.

    In ``labels`` in place of an ``images`` (``JPEGImages``, ``data``) of the path, the last
    that has the file, or beside the image.
    """
    beside = image.with_suffix(".txt")
    parts = beside.parts
    places = []
    for k in range(len(parts) - 2, -1, -1):
        if parts[k].lower() in IMAGE_FOLDERS:
            base = Path(*parts[:k])
            place = (subfolder(base, "labels") or base / "labels").joinpath(*parts[k + 1 :])
            if is_file(place):
                return place
            places.append(place)
    return beside if is_file(beside) or not places else places[0]


def _images_in(place: Path, reading: ReadResult) -> list[Path]:
    if is_file(place):
        return list(_listed_images(place, reading))
    images = images_in(place, reading)
    labels = {label_path(image) for image in images}
    folders = {label_path(place / "x.jpg").parent, *(label.parent for label in labels)}
    for label in sorted({f for folder in folders for f in files_in(folder, (".txt",), deep=False)}):
        if label not in labels and label.name.lower() not in NAMES and _has_rows(label):
            reading.skip(label, 0, f"there is no image of this label in {place}")
    return images


def _has_rows(path: Path) -> bool:
    """Whether a text file is a label: empty, or a line of numbers; lists and notes are not."""
    try:
        words = read_text(path).strip().partition("\n")[0].split()
    except DataError:
        return False
    return all(map(is_number, words))


def _listed_images(listing: Path, reading: ReadResult) -> Iterator[Path]:
    folders = (listing.parent, listing.parent.parent)
    for line, text in enumerate(read_text(listing).splitlines(), start=1):
        name = slashes(text)
        if not name:
            continue
        # darknet's lists begin at its working folder, in which the data lie in data/.
        places = [f / n for n in (name, name.removeprefix("data/")) for f in folders]
        image = next((place for place in places if is_file(place)), None)
        if image is None and leads_out(text.strip()):
            image = find_image(name, folders)
        if image is None:
            reading.refuse(listing, line, f"there is no image {text.strip()}")
        else:
            yield image


def _sample(image: Path, config: Config, reading: ReadResult, unlabelled: list[Path]) -> Sample | None:
    label = label_path(image)
    labelled = is_file(label)
    if not labelled:
        unlabelled.append(image)
    sample = None
    with reading.refusing(label):
        rows = _rows(label, read_text(label) if labelled else "", config, reading)
        shares = np.array([box for _, box in rows], np.float64).reshape(-1, 4)
        size = image_size(image) if rows else (1, 1)
        xyxy = cxcywh_to_xyxy(shares * np.array([*size, *size]))
        sample = Sample(image.stem, image, boxes_only([config.names[class_id] for class_id, _ in rows], xyxy))
    return sample


def _rows(label: Path, text: str, config: Config, reading: ReadResult) -> list[tuple[int, list[float]]]:
    """Class index and shares of each box that has an area."""
    rows = []
    for line, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        with reading.refusing(label, line):
            fields = row.split()
            if config.key_points and len(fields) == 5 + config.key_points:
                reading.note(1, "objects with key points, read as their boxes")
                fields = fields[:5]
            class_id, box, is_polygon = _parse_line(fields, len(config.names), f"{label}:{line}")
            reading.note(is_polygon, "polygons, read as the boxes around them")
            if box[2] and box[3]:
                rows.append((class_id, box))
            else:
                reading.skip(label, line, "the box has no area")
    return rows


def _parse_line(fields: list[str], classes: int, where: str) -> tuple[int, list[float], bool]:
    """Class index; center, width and height as shares of the image; whether it was a polygon."""
    is_polygon = len(fields) >= 7 and len(fields) % 2 == 1
    if len(fields) != 5 and not is_polygon:
        more = KEY_POINTS if len(fields) > 6 else "; a sixth is the score of a result" if len(fields) == 6 else ""
        raise DataError(f"{where}: a label has 5 fields, this line has {len(fields)}{more}")
    index = number(fields[0], where)
    if not index.is_integer() or not 0 <= index < classes:
        raise DataError(f"{where}: class {fields[0]} has no name; there are {classes}, from 0")
    values = [number(field, where) for field in fields[1:]]
    for value in values:
        if not -TOLERANCE <= value <= 1 + TOLERANCE:
            more = KEY_POINTS if value == 2 and is_polygon else ""
            raise DataError(f"{where}: {value:g} is no share of the image, from 0 to 1{more}")
    if is_polygon:
        x, y = values[::2], values[1::2]
        corners = np.array([min(x), min(y), max(x), max(y)])
        return int(index), xyxy_to_cxcywh(corners).tolist(), True
    if values[2] < 0 or values[3] < 0:
        raise DataError(f"{where}: the box has a negative size")
    return int(index), values, False


# -------------------------------------------------------------------- writing


def write(root: Path, new: LabelledSplits, losses: Losses) -> None:
    """Write ``data.yaml``, ``SPLIT.txt`` and ``labels`` beside the folder ``images``.

    Lists keep the order of the images and may share some. YOLO has no area that counts
    neither way: DontCare is a class of that name, and ignored objects become one.

    Raises:
        OSError: the place cannot be written.
    """
    names = list(new.types)
    if any(s.objects.ignored.any() for s in new.samples()) and not any(map(is_dont_care, names)):
        names.append(DONT_CARE)
    dont_care = next((k for k, name in enumerate(names) if is_dont_care(name)), -1)
    numbers = {name: k for k, name in enumerate(names)}
    for sample in new.samples():
        write_text(root / "labels" / f"{sample.id}.txt", _labels(sample, numbers, dont_care, losses))
    for split, samples in new.splits.items():
        write_text(root / f"{split}.txt", "".join(f"./{IMAGES}/{sample.image.name}\n" for sample in samples))
    lines = [f"{split}: {split}.txt" for split in new.splits]
    lines += ["names:", *(f"  {k}: {dumps(n, ensure_ascii=False)}" for k, n in enumerate(names))]
    write_text(root / "data.yaml", "\n".join(lines) + "\n")


def _labels(sample: Sample, numbers: Mapping[str, int], dont_care: int, losses: Losses) -> str:
    objects, (width, height) = sample.objects, sample.size or (1, 1)
    losses.add(sample, objects.truncated > 0, "truncation is not in YOLO")
    losses.add(sample, objects.occluded > 0, "occlusion is not in YOLO")
    losses.add(sample, objects.ignored, "the class of an ignored object: a class DontCare says so")
    size = np.array([width, height] * 2, np.float64)
    whole = objects.xyxy.astype(np.float64)
    shares = xyxy_to_cxcywh(whole) / size
    outside: NDArray[np.bool_] = np.logical_or.reduce((shares < 0) | (shares > 1), axis=1)
    cut = clip(whole, width, height)
    gone = outside & (area(cut) <= 0)
    losses.add(sample, gone, "the box, all of it outside the image")
    losses.add(sample, outside & ~gone, "what of the box is outside the image")
    shares = np.where(outside[:, None], xyxy_to_cxcywh(cut) / size, shares)
    lines = [
        f"{dont_care if ignored else numbers[name]} " + " ".join(f"{v:.9g}" for v in row)
        for name, ignored, row, drop in zip(objects.types, objects.ignored, shares.tolist(), gone, strict=True)
        if not drop
    ]
    return "".join(f"{line}\n" for line in lines)
