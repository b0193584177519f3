"""Pascal VOC: ``JPEGImages``, ``Annotations/ID.xml``, and lists in ``ImageSets/Main``.

VOC counts pixels from 1 and boxes hold their last pixel: (1, 1, W, H) is the whole image.
Here that is (0, 0, W, H), so 1 is taken from xmin and ymin. Tools that count from 0 write
the layout too; a coordinate below 1 shows it and stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from squeezedet.data.kitti import images_of
from squeezedet.data.reading import (
    Found,
    Reading,
    split_name,
    types_by_frequency,
)
from squeezedet.data.sample import Objects, Sample, is_dont_care
from squeezedet.data.voc_xml import IMAGES, Annotation, format_annotation, read_annotation
from squeezedet.data.writing import Losses, NewDataSet, write_text
from squeezedet.errors import DataError
from squeezedet.files import read_text

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip


IMAGE_FOLDERS = (IMAGES, "images", "Images")
SPLIT_FOLDERS = ("train", "valid", "val", "test")
TRUNCATED = 0.5
"""VOC says that an object is cut off, not how much: the middle of KITTI's scale."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of annotations.

    Attributes:
        split: its name where a folder is a split, else "".
        root: may hold ``ImageSets``.
        annotations: folder of the XML files.
        images: folder of the images.
    """

    split: str
    root: Path
    annotations: Path
    images: Path


def places_of(path: Path) -> list[Place]:
    """Where a folder has VOC's annotations; nothing if it is no VOC folder.

    ``Annotations`` in the folder itself or in the one ``VOC2007`` within it (also under
    ``VOCdevkit``); else XML files beside the images, in ``train``, ``valid`` and ``test`` as
    Roboflow writes them, or in the folder itself as LabelImg does.
    """
    nested = [*path.glob("VOC20*"), *path.glob("VOCdevkit/VOC20*")]
    for root in (path, *(nested if len(nested) == 1 else ())):
        annotations = root / "Annotations"
        if _has_xml(annotations):
            folders = (root / name for name in IMAGE_FOLDERS)
            return [Place("", root, annotations, next(filter(Path.is_dir, folders), root))]
    flat = [path / name for name in SPLIT_FOLDERS if _has_xml(path / name)]
    if flat:
        return [Place(split_name(f.name), f, f, f) for f in flat]
    return [Place("", path, path, path)] if _has_xml(path) else []


def _has_xml(folder: Path) -> bool:
    return any(folder.glob("*.xml"))


def root_of_list(path: Path) -> Path | None:
    """The folder with ``Annotations`` that a list of ids belongs to."""
    roots = [path.parent]
    if path.parent.name == "Main" and path.parent.parent.name == "ImageSets":
        roots.append(path.parents[2])
    return next((root for root in roots if _has_xml(root / "Annotations")), None)


def read_list(path: Path) -> list[str]:
    """The ids of a list, one a line; VOC's lists for single classes have a second column.

    Raises:
        DataError: it cannot be read.
    """
    return [line.split()[0] for line in read_text(path).splitlines() if line.strip()]


def read(path: Path, reading: Reading) -> Found:
    """Read a VOC folder with all its splits, or one list of ids.

    Splits are named by the lists of ``ImageSets/Main`` (those of one column; the others are
    of single classes), or by folders. Without any, all annotated images are the split
    ``all``, and an image without annotation, or an annotation without image, is skipped. In
    a list either is malformed. A box without area is skipped.

    ``difficult`` becomes ``Objects.ignored``; ``truncated`` 0.5; ``occluded`` 1.

    Raises:
        DataError: a folder or list cannot be read, or what ``reading`` refuses.
    """
    root = root_of_list(path) if path.is_file() else path
    places = places_of(root) if root else []
    if not places:
        raise DataError(f"{path}: no VOC folder; it has Annotations/*.xml and JPEGImages")
    splits: dict[str, list[Sample]] = {}
    for place in places:
        images = images_of(place.images)
        lists = _lists(path, place)
        if lists:
            ids = dict.fromkeys(i for some in lists.values() for i in some)
            known = {i: s for i in ids if (s := _listed(i, place, images, reading))}
            splits |= {n: [known[i] for i in some if i in known] for n, some in lists.items()}
        else:
            splits[place.split or "all"] = list(_everything(place, images, reading))
    samples = {s.image: s for some in splits.values() for s in some}
    return Found(splits, types_by_frequency(samples.values()))


def _lists(path: Path, place: Place) -> dict[str, list[str]]:
    if path.is_file():
        return {path.stem: read_list(path)}
    lists = {}
    for listing in sorted((place.root / "ImageSets" / "Main").glob("*.txt")):
        lines = [line.split() for line in read_text(listing).splitlines() if line.strip()]
        if lines and all(len(words) == 1 for words in lines):
            lists[listing.stem] = list(dict.fromkeys(words[0] for words in lines))
    return lists


def _listed(i: str, place: Place, images: Mapping[str, Path], reading: Reading) -> Sample | None:
    label = place.annotations / f"{i}.xml"
    if i not in images:
        reading.refuse(place.images / i, 0, "a split lists it, there is no such image")
        return None
    if not label.is_file():
        reading.refuse(label, 0, "a split lists it, there is no such annotation")
        return None
    return _sample(i, images[i], label, reading)


def _everything(place: Place, images: Mapping[str, Path], reading: Reading) -> Iterator[Sample]:
    labels = {p.stem: p for p in sorted(place.annotations.glob("*.xml"))}
    for i in sorted(images.keys() | labels.keys()):
        if i not in labels:
            reading.skip(images[i], 0, f"the image has no annotation in {place.annotations}")
        elif i not in images:
            reading.skip(labels[i], 0, f"there is no image of it in {place.images}")
        elif sample := _sample(i, images[i], labels[i], reading):
            yield sample


def _sample(i: str, image: Path, label: Path, reading: Reading) -> Sample | None:
    sample = None
    with reading.refusing(label):
        found = read_annotation(label, reading)
        reading.note(found.beyond, "objects that say more than a box (pose, parts, polygon)")
        sample = Sample(i, image, _objects(found, label, reading))
    return sample


def _objects(found: Annotation, path: Path, reading: Reading) -> Objects:
    xyxy = found.xyxy.copy()
    xyxy[:, :2] -= xyxy[:, :2] >= 1
    size = xyxy[:, 2:] - xyxy[:, :2]
    for k in np.flatnonzero((size <= 0).any(axis=1)).tolist():
        box = ", ".join(f"{v:g}" for v in found.xyxy[k])
        if (size[k] < 0).any():
            reading.refuse(path, found.lines[k], f"the box ({box}) ends before it begins")
        else:
            reading.skip(path, found.lines[k], f"the box ({box}) has no area")
    good = (size > 0).all(axis=1)
    types = np.array(found.types, dtype=object)[good]
    regions = np.array([is_dont_care(t) for t in types], dtype=bool)
    unknown = regions & ~found.truncated[good] & ~found.occluded[good]
    return Objects(
        tuple(types.tolist()),
        xyxy[good].astype(np.float32),
        np.where(unknown, -1, found.truncated[good] * TRUNCATED).astype(np.float32),
        np.where(unknown, -1, found.occluded[good]).astype(np.int64),
        found.difficult[good] & ~regions,
    )


# -------------------------------------------------------------------- writing


def write(root: Path, new: NewDataSet, losses: Losses) -> None:
    """Write ``Annotations`` and ``ImageSets/Main`` beside the images in ``JPEGImages``.

    Coordinates count from 1 as VOC's do, with at most 3 decimals. DontCare is an object of
    that name, difficult.

    Raises:
        OSError: the place cannot be written.
    """
    for image in new.images:
        write_text(root / "Annotations" / f"{image.name}.xml", format_annotation(image))
        truncated, occluded = image.objects.truncated, image.objects.occluded
        degree = (truncated > 0) & (truncated != TRUNCATED)
        losses.add(image, degree, "how much is cut off: VOC says only that it is")
        losses.add(image, occluded >= 2, "how much is hidden: VOC says only that it is")
    for name, ids in new.splits.items():
        if name != "all":
            listing = root / "ImageSets" / "Main" / f"{name}.txt"
            write_text(listing, "".join(f"{i}\n" for i in ids))
