"""Which of the four layouts a folder or a file has, and the reader of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from squeezedet.data import coco, kitti, voc, yolo, yolo_config
from squeezedet.data.reading import Found, Reading
from squeezedet.errors import DataError

Layout = Literal["kitti", "voc", "coco", "yolo"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
HINTS = (
    "KITTI has image_2 and label_2; VOC Annotations/*.xml; COCO a JSON with images, annotations "
    "and categories; YOLO a data.yaml, or images, labels and classes.txt"
)


def readers() -> dict[Layout, Callable[[Path, Reading], Found]]:
    """The reader of each layout."""
    return {"kitti": kitti.read, "voc": voc.read, "coco": coco.read, "yolo": yolo.read}


def detect(path: Path) -> Layout:
    """See ``squeezedet.data.dataset.detect_layout``."""
    if path.is_file():
        return _of_file(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    looks: dict[Layout, bool] = {
        "kitti": kitti.root_of(path) is not None,
        "voc": bool(voc.places_of(path)),
        "coco": bool(coco.label_files(path)),
        "yolo": yolo_config.is_yolo(path),
    }
    found = [layout for layout, yes in looks.items() if yes]
    if not found:
        raise DataError(f"{path}: no data set of a known layout; {HINTS}")
    if len(found) > 1:
        raise DataError(
            f"{path}: holds labels in more than one layout ({', '.join(found)}); say which is "
            "meant, or give the JSON or data.yaml itself"
        )
    return found[0]


def _of_file(path: Path) -> Layout:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return "coco"
    if suffix in yolo_config.CONFIG_SUFFIXES:
        return "yolo"
    if suffix == ".txt":
        if kitti.root_of_list(path):
            return "kitti"
        return "voc" if voc.root_of_list(path) else "yolo"
    raise DataError(f"{path}: no data set; a file is COCO's JSON, YOLO's data.yaml or a .txt list")
