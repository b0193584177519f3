"""Data sets in any of four layouts: find out which, and read all of it into ``Sample``s.

Nothing is dropped silently. What is malformed is an error that names file and line; what is
merely useless (a box without area, an unlabelled image) is left out, counted and listed, and
above a limit an error too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from squeezedet.data import coco, kitti, voc, yolo
from squeezedet.data.sample import (
    KITTI_DEFAULT,
    ClassMap,
    Found,
    ReadResult,
    Sample,
    Skipped,
    is_dont_care,
)
from squeezedet.errors import DataError

# ---- layouts: Which of the four layouts a folder or a file has, and the reader of each.

Layout = Literal["kitti", "voc", "coco", "yolo"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
HINTS = (
    "KITTI has image_2 and label_2; VOC Annotations/*.xml; COCO a JSON with images, annotations "
    "and categories; YOLO a data.yaml, or images, labels and classes.txt"
)


def readers() -> dict[Layout, Callable[[Path, ReadResult], Found]]:
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
        "voc": bool(voc.find_files(path)),
        "coco": bool(coco.label_files(path)),
        "yolo": yolo.is_yolo(path),
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
    if suffix in yolo.CONFIG_SUFFIXES:
        return "yolo"
    if suffix == ".txt":
        if kitti.root_of_list(path):
            return "kitti"
        return "voc" if voc.root_of_list(path) else "yolo"
    raise DataError(f"{path}: no data set; a file is COCO's JSON, YOLO's data.yaml or a .txt list")


# ---- dataset: Data sets in any of four layouts: find out which, and read all of it into ``Sample

__all__ = [
    "LAYOUTS",
    "Dataset",
    "Layout",
    "Skipped",
    "class_map_for",
    "detect_layout",
    "read_dataset",
    "read_split",
]

MAX_SKIPPED = 0.01
"""Share of the labels that may be left out before it is an error."""

KITTI_TYPES = frozenset(
    ["car", "van", "truck", "pedestrian", "person_sitting", "cyclist", "tram", "misc", "dontcare"]
)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Everything that was read of a data set.

    Attributes:
        path: the folder or file that was asked for.
        layout: how it is laid out.
        splits: the samples of each split in the order of the data; at least one, and ``all``
            only when nothing names splits. An image may be in several (VOC's ``trainval``).
        types: type names: in the order of COCO's category ids or YOLO's names, also those
            without an object; for KITTI and VOC by falling frequency, then by name.
        skipped: labels and images that were left out, in the order of reading.
        notes: what a user should know, one sentence each: what the files say beyond boxes
            (masks, 3D boxes), folders that were guessed.
    """

    path: Path
    layout: Layout
    splits: Mapping[str, tuple[Sample, ...]]
    types: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    def samples(self) -> tuple[Sample, ...]:
        """Every sample once, in the order of the splits."""
        once: dict[Path, Sample] = {}
        for split in self.splits.values():
            for sample in split:
                once.setdefault(sample.image, sample)
        return tuple(once.values())

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of a split; ``all`` for every sample once.

        Raises:
            DataError: there is no such split.
        """
        if name in self.splits:
            return self.splits[name]
        if name == "all":
            return self.samples()
        raise DataError(f"{self.path}: no split {name!r}; it has {', '.join(self.splits)}")


def detect_layout(path: Path | str) -> Layout:
    """Which layout a folder or a file has.

    A file is COCO's JSON, YOLO's ``data.yaml``, or a ``.txt`` list of images (YOLO) or of ids
    (KITTI, VOC). A folder is told by what is in it; see ``find_layouts`` of each format.

    Raises:
        DataError: there is nothing at the path, it is none of the four, or more than one.
    """
    return detect(Path(path))


def read_dataset(
    path: Path | str,
    *,
    layout: Layout | None = None,
    max_skipped: float = MAX_SKIPPED,
    strict: bool = True,
) -> Dataset:
    """Read every label of a data set; no image is decoded.

    Args:
        path: folder or file, see ``detect_layout``.
        layout: its layout, when it shall not be found out.
        max_skipped: share of the labels that may be left out as useless, 0 to 1.
        strict: a malformed label is an error. False: it is left out and listed in
            ``skipped`` like the useless ones, so that all of them can be shown.

    Raises:
        DataError: a file or folder cannot be read; a malformed label (``strict``); no image at
            all; or more labels skipped than ``max_skipped``.
    """
    path = Path(path)
    layout = layout or detect_layout(path)
    reading = ReadResult(strict=strict)
    found = readers()[layout](path, reading)
    dataset = Dataset(
        path,
        layout,
        {name: tuple(samples) for name, samples in found.splits.items()},
        tuple(found.types),
        tuple(reading.skipped),
        reading.notes,
    )
    samples = dataset.samples()
    if not samples:
        raise DataError(f"{path}: no images{reading.reason()}")
    reading.check_limit(path, sum(len(s.objects) for s in samples), max_skipped)
    return dataset


def read_split(path: Path | str, split: str) -> list[Sample]:
    """The samples of one split, in its order.

    Of a KITTI folder the split may also be the path of a list of ids, as ``kitti.read_folder``
    takes it.

    Raises:
        DataError: see ``read_dataset``; there is no such split.
    """
    path = Path(path)
    if detect_layout(path) == "kitti" and path.is_dir() and Path(split).is_file():
        from squeezedet.data.kitti import read_folder

        return read_folder(path, split)
    return list(read_dataset(path).split(split))


def class_map_for(dataset: Dataset) -> ClassMap:
    """Which classes a detector learns from these data.

    KITTI's own types give ``KITTI_DEFAULT``, in whatever layout they come: those of a KITTI
    folder, or elsewhere when car, pedestrian and cyclist are all there and nothing that KITTI
    does not know. Of any other data every type is a class, in their order; types that differ
    in case alone are one. DontCare is always a region.

    Raises:
        DataError: the data name no class.
    """
    lower = {t.lower() for t in dataset.types}
    learnt = {name.lower() for name in KITTI_DEFAULT.names}
    complete = learnt <= lower or (dataset.layout == "kitti" and lower & learnt)
    if complete and lower <= KITTI_TYPES:
        return KITTI_DEFAULT
    names = {t.lower(): t for t in reversed(dataset.types) if not is_dont_care(t)}
    if not names:
        raise DataError(f"{dataset.path}: names no class; nothing can be learnt from it")
    return ClassMap(tuple(reversed(names.values())), regions=("DontCare",))
