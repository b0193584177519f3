"""One labelled image of any layout; what readers of labels collect, and what writers get."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import DataError
from squeezedet.files import open_regular
from squeezedet.media.images import FORMATS, ORIENTATION, read_image

if TYPE_CHECKING:
    from PIL.Image import Image

DONT_CARE = "DontCare"
"""KITTI's type for areas that nobody labelled; the same name stands for them in every layout."""
LIMIT = 1_000_000
"""No number of a label is larger."""
SPLIT_NAMES = {name: name for name in ("train", "val", "test", "trainval")}
SPLIT_NAMES |= {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_NOT_GIVEN = np.zeros(0, dtype=bool)


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The labelled boxes of one image, in the order of its label file.

    Attributes:
        types: N type names as written in the label ("Car", "DontCare", ...).
        xyxy: (N, 4) float32, pixels of the original image, no pixel added.
        truncated: (N,) float32, 0 to 1; 0 where the source does not say; -1 for regions.
        occluded: (N,) int64: 0 visible, 1 partly, 2 largely, 3 unknown; -1 for regions.
        ignored: (N,) True where a labelled object counts neither way, in training as in
            evaluation: VOC's difficult, COCO's crowd. None given means none is. DontCare needs
            no flag, its type says so: it stays False there.
    """

    types: tuple[str, ...]
    xyxy: NDArray[np.float32]
    truncated: NDArray[np.float32]
    occluded: NDArray[np.int64]
    ignored: NDArray[np.bool_] = field(default_factory=lambda: _NOT_GIVEN)

    def __post_init__(self) -> None:
        if self.ignored is _NOT_GIVEN:
            object.__setattr__(self, "ignored", np.zeros(len(self.types), dtype=bool))

    def __len__(self) -> int:
        return len(self.types)


def boxes_only(types: Sequence[str], xyxy: NDArray[np.floating], ignored: NDArray[np.bool_] = _NOT_GIVEN) -> Objects:
    """Objects of a layout that says nothing of truncation and occlusion."""
    regions = np.array([is_dont_care(t) for t in types], dtype=bool)
    unknown = np.where(regions, -1, 0)
    ignored = ignored if ignored is _NOT_GIVEN else ignored & ~regions
    return Objects(tuple(types), xyxy.astype(np.float32), unknown.astype(np.float32), unknown, ignored)


def is_dont_care(type_name: str) -> bool:
    """Whether a type is KITTI's DontCare, compared without case."""
    return type_name.lower() == DONT_CARE.lower()


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image and its labels.

    Attributes:
        id: name of the image without folder and suffix.
        image: path of the image file.
        objects: every label line, regions included.
        size: (width, height) of the image for which the labels were made, where they say so.
    """

    id: str
    image: Path
    objects: Objects
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Which label types a detector learns. Types are compared without case.

    Attributes:
        names: class names; index = class id.
        aliases: label type -> class name, beside the names themselves.
        regions: label types whose area has no confidence loss.

    Any other type is background.
    """

    names: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...] = ()
    regions: tuple[str, ...] = ()

    def class_ids(self, types: tuple[str, ...]) -> NDArray[np.int64]:
        """(N,) class id of each type, -1 for what is no class."""
        table = {name.lower(): i for i, name in enumerate(self.names)}
        table |= {alias.lower(): self.names.index(name) for alias, name in self.aliases}
        return np.array([table.get(t.lower(), -1) for t in types], dtype=np.int64)

    def is_region(self, types: tuple[str, ...]) -> NDArray[np.bool_]:
        """(N,) True where the type is an area without confidence loss."""
        regions = {r.lower() for r in self.regions}
        return np.array([t.lower() in regions for t in types], dtype=bool)

    def map_types(self, objects: Objects) -> Objects:
        """The labels with class names where they are learned, DontCare for regions, and any other type as it is."""
        rows = zip(
            objects.types, self.class_ids(objects.types).tolist(), self.is_region(objects.types).tolist(), strict=True
        )
        types = (DONT_CARE if region else self.names[index] if index >= 0 else kind for kind, index, region in rows)
        return replace(objects, types=tuple(types))

    def has_objects(self, objects: Objects) -> bool:
        """Whether any object of a class is there to learn or to find."""
        return bool((self.targets(objects)[0] >= 0).any())

    def targets(self, objects: Objects) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """What is learnt of labelled objects.

        Returns:
            (N,) class id, -1 for what is no object to learn; and (N,) True for areas without
            confidence loss: the region types, and ignored objects of a class.
        """
        class_id = self.class_ids(objects.types)
        ignored = objects.ignored & (class_id >= 0)
        class_id[ignored] = -1
        return class_id, self.is_region(objects.types) | ignored


# KITTI's three classes. The paper's code drops every other type and learns its
# area as background; the default learns vans as cars, since most other sources
# of road images call them so, and leaves seated people and DontCare without loss.
KITTI_PAPER = ClassMap(("car", "pedestrian", "cyclist"))
KITTI_DEFAULT = ClassMap(
    ("car", "pedestrian", "cyclist"), aliases=(("van", "car"),), regions=("DontCare", "Person_sitting")
)


# --------------------------------------------------------------------- reading


def number(text: str, where: str, limit: float = LIMIT) -> float:
    """A finite number that a file may hold.

    Raises:
        DataError: it is none, or beyond the limit.
    """
    try:
        if "_" in text:  # Python's 1_000
            raise ValueError
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {text!r} is not a number") from None
    if not math.isfinite(value):
        raise DataError(f"{where}: {text} is not finite")
    if abs(value) > limit:
        raise DataError(f"{where}: {text} is beyond {limit:.0f}")
    return value


def check_box(box: Sequence[float], where: str) -> None:
    """Refuse a box (x1, y1, x2, y2) that ends before it begins.

    Raises:
        DataError: names the place.
    """
    x1, y1, x2, y2 = box
    if x2 < x1 or y2 < y1:
        raise DataError(f"{where}: the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has x2 < x1 or y2 < y1")


def is_number(text: str) -> bool:
    """Whether a text is a number as labels have it."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def split_name(text: str) -> str:
    """The name that a split has here: others' ``valid``, ``Val`` and ``validation`` are ``val``."""
    return SPLIT_NAMES.get(text.lower(), text)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A label or an image that a reader left out.

    Attributes:
        file: the label file, or the image.
        line: line of the file, 1 for the first; 0 when it is about the whole file.
        reason: why, in a few words.
        malformed: it cannot be what its writer meant (a NaN, an unknown class); False for
            what is merely useless (a box without area, an unlabelled image).
    """

    file: Path
    line: int
    reason: str
    malformed: bool = False

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else f"{self.file}"
        return f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class LabelledSplits:
    """What a reader of one layout found, or a writer writes.

    For a writer the images are in their folder already, each has an id of its own without blanks, and a size.

    Attributes:
        splits: the samples of each split.
        types: type names in the order of ``Dataset.types``.
    """

    splits: Mapping[str, Sequence[Sample]]
    types: Sequence[str]

    def samples(self) -> list[Sample]:
        """Every sample once, in the order of the splits."""
        once: dict[Path, Sample] = {}
        for samples in self.splits.values():
            for sample in samples:
                once.setdefault(sample.image, sample)
        return list(once.values())


@dataclass(slots=True)
class ReadResult:
    """Collects, during one reading of a data set, what is left out and what is worth a note.

    Attributes:
        strict: ``refuse`` raises.
        skipped: what was left out.
        remarks: what is worth a note -> of how many labels or files; 0 for a whole sentence.
    """

    strict: bool = True
    skipped: list[Skipped] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)

    def skip(self, file: Path, line: int, reason: str) -> None:
        """Leave out what is useless."""
        self.skipped.append(Skipped(file, line, reason))

    def refuse(self, file: Path, line: int, reason: str) -> None:
        """Leave out what is malformed.

        Raises:
            DataError: the reading is strict.
        """
        entry = Skipped(file, line, reason, malformed=True)
        if self.strict:
            raise DataError(str(entry))
        self.skipped.append(entry)

    @contextmanager
    def refusing(self, file: Path, line: int = 0) -> Iterator[None]:
        """Make a ``DataError`` of the block a refusal of this file and line."""
        try:
            yield
        except DataError as error:
            if self.strict:
                raise
            where = str(Skipped(file, line, ""))
            self.skipped.append(Skipped(file, line, str(error).removeprefix(where), malformed=True))

    def note(self, count: int, what: str) -> None:
        """Add to "WHAT: COUNT"; nothing for a count of 0."""
        if count:
            self.remarks[what] += count

    def say(self, sentence: str) -> None:
        """Add a sentence without a number."""
        self.remarks[sentence] = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """The sentences, in the order in which they came up."""
        return tuple(f"{text}: {n:,}" if n else text for text, n in self.remarks.items())

    def reason(self) -> str:
        """The first thing left out, as the end of another sentence; "" if there is none."""
        return f"; the first left out: {self.skipped[0]}" if self.skipped else ""


# ----------------------------------------------------------------------- sizes


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright image, as ``squeezedet.media.images.read_image`` gives it.

    Raises:
        DataError: there is no image, or its header is damaged.
    """
    from PIL import Image

    try:
        with open_regular(path, what="image") as file, Image.open(file, formats=FORMATS) as picture:
            return upright_size(picture)
    except Exception:  # what is wrong, the strict reader says in a sentence
        pixels = read_image(path).pixels
        return pixels.shape[1], pixels.shape[0]


def size_warnings(samples: Iterable[Sample], split: str) -> list[str]:
    """Labels made for images of another size than the files have; only headers are read.

    Boxes of such labels lie beside their objects: the image was scaled after it was labelled,
    or the labels know nothing of its EXIF orientation.
    """
    wrong = []
    for sample in samples:
        if sample.size is None:
            continue
        with contextlib.suppress(DataError):  # an image that cannot be read is told elsewhere
            if (size := image_size(sample.image)) != sample.size:
                wrong.append((sample, size))
    if not wrong:
        return []
    (first, size), (width, height) = wrong[0], wrong[0][0].size or (0, 0)
    return [
        f"split {split!r}: {len(wrong):,} images have another size than their labels say, the "
        f"first {first.image}: {size[0]}x{size[1]}, labelled as {width}x{height}; their boxes "
        "are in the wrong place"
    ]


def upright_size(picture: Image) -> tuple[int, int]:
    """(width, height) of a picture once it is turned as its EXIF data say.

    A PNG that says so behind its pixels is taken as it lies: asking would decode it.
    """
    width, height = picture.size
    if picture.format == "PNG" and not {"exif", "xmp"} & picture.info.keys():
        return width, height
    orientation = 1
    with contextlib.suppress(Exception):  # damaged EXIF data say nothing
        orientation = picture.getexif().get(ORIENTATION, 1)
    return (height, width) if orientation in SIDEWAYS else (width, height)


# --------------------------------------------------------------------- writing


@dataclass(slots=True)
class Losses:
    """Collects what a conversion loses: name of the image, number of the label from 1, what."""

    entries: list[tuple[str, int, str]] = field(default_factory=list)

    def add(self, sample: Sample, which: NDArray[np.bool_] | Sequence[bool], what: str) -> None:
        """One entry for each label of the image that is marked."""
        marked = np.flatnonzero(which).tolist()
        self.entries.extend((sample.id, k + 1, what) for k in marked)

    def counts(self) -> dict[str, int]:
        """How many labels lose what, in the order of the first."""
        return dict(Counter(what for _, _, what in self.entries))


def write_text(path: Path, text: str) -> None:
    """Write a file of a folder that is not yet in its place, so nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
