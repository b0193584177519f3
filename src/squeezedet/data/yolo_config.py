"""What a YOLO data set says of itself: its class names, and the images of each split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from squeezedet.data.reading import Reading, split_name
from squeezedet.data.yaml_subset import Value, read_yaml
from squeezedet.errors import DataError
from squeezedet.files import read_text

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


def read_config(path: Path, reading: Reading) -> Config:
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


def _of_list(path: Path, reading: Reading) -> Config:
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


def _of_yaml(path: Path, reading: Reading) -> Config:
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


def _base(value: Value, path: Path, reading: Reading) -> Path:
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
