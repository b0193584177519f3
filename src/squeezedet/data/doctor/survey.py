"""All that the checks look at, read once, and what they find."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.dataset import MAX_IMAGE_BYTES, Dataset
from squeezedet.data.sample import ClassMap, Sample, upright_size
from squeezedet.errors import DataError
from squeezedet.files import read_regular
from squeezedet.media.images import FORMATS, MAX_PIXELS, Frame, frame_of, read_image
from squeezedet.preprocess import InputRule

THUMBNAIL = (34, 32)  # (width, height): halved, the 17x16 that a 16x16 difference hash needs


class Level(StrEnum):
    """How bad it is."""

    error = "error"
    """Training would stop, learn something wrong, or be measured wrongly."""
    warning = "warning"
    """Worth a look before hours are spent."""
    note = "note"
    """Good to know."""


@dataclass(frozen=True, slots=True, eq=False)
class Location:
    """Where something was found.

    Attributes:
        name: for people: a file and its line, or the split and the id of an image.
        sample: the image, if there is one that can be shown.
        boxes: which of its boxes.
        other: a second image to see beside the first.
        badness: the worst is told first.
    """

    name: str
    sample: Sample | None = None
    boxes: tuple[int, ...] = ()
    other: Sample | None = None
    badness: float = 0.0

    def __str__(self) -> str:
        if not self.boxes:
            return self.name
        return f"{self.name} box{'es' * (len(self.boxes) > 1)} {', '.join(map(str, self.boxes))}"


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What one check found.

    Attributes:
        level: how bad it is.
        check: name of the check.
        where: the worst first; empty if it concerns all of the data.
        count: how many boxes, images or classes are concerned.
        sentence: what is wrong, what it does to training, what to do.
    """

    level: Level
    check: str
    where: tuple[Location, ...]
    count: int
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON; boxes are numbered from 0."""
        return {
            "level": self.level.value,
            "check": self.check,
            "count": self.count,
            "sentence": self.sentence,
            "where": [str(place) for place in self.where],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What is known of an image that was decoded.

    Attributes:
        width, height: of the upright image.
        digest: of the file's bytes.
        grey: (32, 34) uint8 thumbnail, the whole image stretched.
        notes: what the reader says of it, see ``Frame.notes``.
    """

    width: int
    height: int
    digest: bytes
    grey: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def look_at_all(paths: Iterable[Path]) -> Mapping[Path, Look | str]:
    """A look at each image, or the sentence that says why it cannot be used.

    Decoding takes place in several threads; Pillow lets go of the interpreter meanwhile.
    """

    def look_or_reason(path: Path) -> Look | str:
        try:
            return look_at(path)
        except DataError as error:
            return str(error)

    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(unique, pool.map(look_or_reason, unique), strict=True))


def look_at(path: Path) -> Look:
    """Decode one image, as small as its format allows.

    A JPEG is decoded at an eighth of its size, which reads every byte of it in a fraction of the
    time; what ``read_image`` refuses is refused here.

    Raises:
        DataError: the image cannot be read.
    """
    from PIL import Image

    content = read_regular(path, MAX_IMAGE_BYTES, what="image")
    found = _eighth(content, str(path))
    if found is None:
        frame = read_image(content, str(path))
        found = frame, (frame.pixels.shape[1], frame.pixels.shape[0])
    frame, (width, height) = found
    grey = Image.fromarray(frame.pixels).convert("L").resize(THUMBNAIL, Image.Resampling.BOX)
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return Look(width, height, digest, np.asarray(grey), frame.notes)


def _eighth(content: bytes, name: str) -> tuple[Frame, tuple[int, int]] | None:
    """A JPEG at an eighth and the (width, height) of all of it; None for what the strict reader must read."""
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception:  # what is wrong, the strict reader says in a sentence
        return None
    with picture:
        width, height = picture.size
        if picture.format != "JPEG" or width * height > MAX_PIXELS:
            return None
        size = upright_size(picture)
        picture.draft(None, (max(width // 8, 1), max(height // 8, 1)))
        try:
            return frame_of(picture, name), size
        except DataError:
            return None  # the strict reader says why, or can make it whole


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """A data set, and what a look at each of its images showed.

    Attributes:
        dataset: every sample of every split, and what its reader skipped.
        class_map: which types are learned.
        rule: which input size an image gets.
        looks: by path of the image; a text says why it cannot be decoded.
    """

    dataset: Dataset
    class_map: ClassMap
    rule: InputRule
    looks: Mapping[Path, Look | str]

    @property
    def splits(self) -> Mapping[str, tuple[Sample, ...]]:
        """The samples of each split."""
        return self.dataset.splits

    @property
    def training_split(self) -> str:
        """``train`` if there is one, else the first."""
        return "train" if "train" in self.splits else next(iter(self.splits))

    def samples(self) -> Iterator[tuple[str, Sample]]:
        """Each image once, with the first split that has it: splits may contain each other."""
        seen: set[Path] = set()
        for split, samples in self.splits.items():
            for sample in samples:
                if sample.image not in seen:
                    seen.add(sample.image)
                    yield split, sample

    def seen(self) -> Iterator[tuple[str, Sample, Look]]:
        """Each image that could be decoded, see ``samples``, and what was seen of it."""
        for split, sample in self.samples():
            look = self.look(sample)
            if look is not None:
                yield split, sample, look

    def look(self, sample: Sample) -> Look | None:
        """What was seen of an image; None if it cannot be decoded."""
        look = self.looks[sample.image]
        return look if isinstance(look, Look) else None

    def learned(self, sample: Sample) -> NDArray[np.bool_]:
        """(N,) True for the boxes that a detector learns as objects."""
        return self.class_map.targets(sample.objects)[0] >= 0

    def scale(self, look: Look) -> NDArray[np.float64]:
        """(2,) how an image is scaled to the input, across and down."""
        return np.divide(self.rule.content(look.width, look.height), (look.width, look.height))

    def input_boxes(self, sample: Sample) -> NDArray[np.float64]:
        """(N, 2) width and height of each box in pixels of the input; 0 if the image is unreadable."""
        look = self.look(sample)
        size = np.maximum(sample.objects.xyxy[:, 2:] - sample.objects.xyxy[:, :2], 0).astype(np.float64)
        return np.asarray(size * (self.scale(look) if look else 0.0))
