"""Pascal VOC: ``JPEGImages``, ``Annotations/ID.xml``, and lists in ``ImageSets/Main``.

VOC counts pixels from 1 and boxes hold their last pixel: (1, 1, W, H) is the whole image.
Here that is (0, 0, W, H), so 1 is taken from xmin and ymin. Tools that count from 0 write
the layout too; a coordinate below 1 shows it and stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import escape

import numpy as np

from squeezedet.data.folders import (
    FolderLayout,
    LabelFolders,
    files_in,
    folders_of_splits,
    images_in,
    lists_in,
    subfolder,
    write_lists,
)
from squeezedet.data.sample import LabelledSplits, Losses, Objects, ReadResult, Sample, is_dont_care, number, write_text
from squeezedet.errors import DataError
from squeezedet.files import read_regular

IMAGES = "JPEGImages"
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
IMAGE_FOLDERS = (IMAGES, "images", "data", "img", "imgs", "image")
LABEL_FOLDERS = ("Annotations", "annotation", "labels", "xml", "xmls", "Annotations_xml")
TRUNCATED = 0.5
"""VOC says that an object is cut off, not how much: the middle of KITTI's scale."""
MAX_BYTES = 20_000_000
SIDES = ("xmin", "ymin", "xmax", "ymax")
CUT_OFF = 0.15
"""VOC calls an object truncated from 15 to 20 % outside (annotation guidelines of 2007)."""
FLAGS = {"": False, "0": False, "1": True, "false": False, "true": True, "unspecified": False}


class VocObject(NamedTuple):
    """An object of an XML file as it stands there: its line, name, box (xmin, ymin, xmax, ymax) and flags."""

    line: int
    name: str
    box: list[float]
    difficult: bool
    truncated: bool
    occluded: bool


def read_annotation(path: Path, reading: ReadResult) -> tuple[list[VocObject], tuple[int, int] | None]:
    """The objects of one XML file, and the (width, height) of its image if it says them.

    Entities are refused: no label needs one, and they can grow without end.

    Raises:
        DataError: the file cannot be read or is no XML; or ``reading`` refuses an object
            without name, without four finite numbers, or with a flag that is none.
    """
    root, lines = _parse(path)
    objects, beyond = [], 0
    for index, (item, line) in enumerate(zip(root.findall("object"), lines, strict=True), start=1):
        with reading.refusing(path, line):
            objects.append(_object(item, path, line, index))
            pose = item.findtext("pose", "").strip().lower() not in ("", "unspecified")
            beyond += pose or any(item.find(k) is not None for k in ("part", "polygon", "mask"))
    reading.note(beyond, "objects that say more than a box (pose, parts, polygon)")
    return objects, _size(root)


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    sides = [root.findtext(f"size/{side}", "").strip() for side in ("width", "height")]
    if not all(side.isascii() and side.isdigit() and len(side) < 7 for side in sides):
        return None
    width, height = map(int, sides)
    return (width, height) if width and height else None


def _object(item: ElementTree.Element, path: Path, line: int, index: int) -> VocObject:
    where = f"{path}:{line}"
    sides = [item.findtext(f"bndbox/{k}", "").strip() for k in SIDES]
    if not all(sides):
        raise DataError(f"{where}: object {index} has no complete bndbox")
    box = [number(side, where) for side in sides]
    name = item.findtext("name", "").strip()
    if not name:
        raise DataError(f"{where}: object {index} has no name")
    flags = {}
    for key in ("difficult", "truncated", "occluded"):
        text = item.findtext(key, "").strip()
        if text.lower() not in FLAGS:
            raise DataError(f"{where}: object {index}: {key} is {text!r}, not 0 or 1")
        flags[key] = FLAGS[text.lower()]
    return VocObject(line, name, box, **flags)


def _parse(path: Path) -> tuple[ElementTree.Element, list[int]]:
    """The tree of an XML file, and the line of each object of its root."""
    content = read_regular(path, MAX_BYTES, what="annotation")
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    lines: list[int] = []
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        if depth == 1 and tag == "object":
            lines.append(parser.CurrentLineNumber)
        depth += 1
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise DataError(f"{path}:{parser.CurrentLineNumber}: an annotation declares no entities")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter: its encoding
        raise DataError(f"{path}: not an XML annotation: {error}") from error
    return builder.close(), lines


def format_annotation(sample: Sample) -> str:
    """The XML of one image."""
    objects, (width, height) = sample.objects, sample.size or (0, 0)
    parts = [
        f"<annotation>\n  <folder>{IMAGES}</folder>\n"
        f"  <filename>{escape(sample.image.name)}</filename>\n"
        f"  <size><width>{width}</width><height>{height}</height>"
        "<depth>3</depth></size>\n  <segmented>0</segmented>\n"
    ]
    for name, box, truncated, occluded, ignored in zip(
        objects.types,
        objects.xyxy.astype(np.float64),
        objects.truncated,
        objects.occluded,
        objects.ignored,
        strict=True,
    ):
        sides = [*(box[:2] + (box[:2] >= 0)), *box[2:]]
        bndbox = "".join(f"<{k}>{round(float(v), 3):.10g}</{k}>" for k, v in zip(SIDES, sides, strict=True))
        parts.append(
            f"  <object>\n    <name>{escape(name)}</name>\n    <pose>Unspecified</pose>\n"
            f"    <truncated>{int(truncated > CUT_OFF)}</truncated>\n"
            f"    <occluded>{int(occluded in (1, 2))}</occluded>\n"
            f"    <difficult>{int(ignored or is_dont_care(name))}</difficult>\n"
            f"    <bndbox>{bndbox}</bndbox>\n  </object>\n"
        )
    return "".join([*parts, "</annotation>\n"])


# --------------------------------------------------------------------- folders


def find_files(path: Path) -> list[LabelFolders]:
    """Where a folder has VOC's annotations; nothing if it is no VOC folder.

    ``Annotations`` beside ``JPEGImages`` (or ``annotations`` and ``images``, ``labels`` and
    ``data``, with sub-folders) in the folder itself or in the one ``VOC2007`` within it (also
    under ``VOCdevkit``); else in folders of splits, or ``annotations/train``; else XML files
    beside the images, in ``train``, ``valid`` and ``test`` as Roboflow writes them, or in the
    folder itself as LabelImg does.
    """
    nested = [*path.glob("VOC20*"), *path.glob("VOCdevkit/VOC20*")]
    for root in (path, *(nested if len(nested) == 1 else ())):
        if found := _pair(root):
            return [LabelFolders("", root, *found)]
    splits = folders_of_splits(path, lambda folder: _pair(folder) or ((folder, folder) if _xml_in(folder) else None))
    if splits:
        return splits
    annotations = _xml_in(path)
    beside = bool(annotations) and bool(images_in(annotations[0].parent, deep=False))
    return [LabelFolders("", path, path, path)] if beside else []


def _pair(root: Path) -> tuple[Path, Path] | None:
    """The folders of annotations and of images within one."""
    for name in LABEL_FOLDERS:
        annotations = subfolder(root, name)
        if annotations and _xml_in(annotations):
            return annotations, subfolder(root, *IMAGE_FOLDERS) or root
    return None


def _xml_in(folder: Path) -> list[Path]:
    return files_in(folder, (".xml",))


def _read_one(i: str, image: Path, label: Path, reading: ReadResult) -> Sample:
    """``difficult`` becomes ``Objects.ignored``; ``truncated`` 0.5; ``occluded`` 1."""
    found, size = read_annotation(label, reading)
    return Sample(i, image, _objects(found, label, reading), size)


def _named_splits(root: Path, known: Collection[str]) -> dict[str, list[str]]:
    """The lists of ``ImageSets/Main``, without those of single classes."""
    sets = subfolder(root, "ImageSets")
    main = sets and (subfolder(sets, "Main") or sets)
    return lists_in(main) if main else {}


def _objects(found: Sequence[VocObject], path: Path, reading: ReadResult) -> Objects:
    """The objects whose box has an area, pixels counted from 0."""
    good, boxes = [], []
    for one in found:
        x1, y1, x2, y2 = one.box
        x1, y1 = x1 - (x1 >= 1), y1 - (y1 >= 1)
        shown = ", ".join(f"{v:g}" for v in one.box)
        if x2 < x1 or y2 < y1:
            reading.refuse(path, one.line, f"the box ({shown}) ends before it begins")
        elif x2 == x1 or y2 == y1:
            reading.skip(path, one.line, f"the box ({shown}) has no area")
        else:
            good.append(one)
            boxes.append((x1, y1, x2, y2))
    region = np.array([is_dont_care(one.name) for one in good], dtype=bool)
    truncated, occluded, difficult = (
        np.array([getattr(one, flag) for one in good], dtype=bool) for flag in ("truncated", "occluded", "difficult")
    )
    unknown = region & ~truncated & ~occluded
    return Objects(
        tuple(one.name for one in good),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.where(unknown, -1, truncated * TRUNCATED).astype(np.float32),
        np.where(unknown, -1, occluded).astype(np.int64),
        difficult & ~region,
    )


LAYOUT = FolderLayout(
    ".xml", "no VOC folder; it has Annotations/*.xml and JPEGImages", find_files, _pair, _named_splits, _read_one
)


# -------------------------------------------------------------------- writing


def write(root: Path, new: LabelledSplits, losses: Losses) -> None:
    """Write ``Annotations`` and ``ImageSets/Main`` beside the images in ``JPEGImages``.

    Coordinates count from 1 as VOC's do, with at most 3 decimals. DontCare is an object of
    that name, difficult.

    Raises:
        OSError: the place cannot be written.
    """
    for sample in new.samples():
        write_text(root / "Annotations" / f"{sample.id}.xml", format_annotation(sample))
        truncated, occluded = sample.objects.truncated, sample.objects.occluded
        degree = (truncated > 0) & (truncated != TRUNCATED)
        losses.add(sample, degree, "how much is cut off: VOC says only that it is")
        losses.add(sample, occluded >= 2, "how much is hidden: VOC says only that it is")
    write_lists(root / "ImageSets" / "Main", new.splits)
