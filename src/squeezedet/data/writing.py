"""What a writer of a layout gets, and where it says what its layout cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.sample import Objects


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """One image of a new data set.

    Attributes:
        name: unique in the set, without folder and suffix, without blanks.
        file: file name in the folder of images.
        width, height: of the upright image in pixels.
        objects: its labels.
    """

    name: str
    file: str
    width: int
    height: int
    objects: Objects


@dataclass(frozen=True, slots=True, eq=False)
class NewDataSet:
    """What a writer writes: labels of images that are in their folder already.

    Attributes:
        images: all of them.
        splits: names of the images of each split.
        types: class names, in the order of their numbers.
    """

    images: Sequence[LabelledImage]
    splits: Mapping[str, Sequence[str]]
    types: Sequence[str]


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that one label said and its new layout cannot.

    Attributes:
        image: name of the image.
        label: number of the label in its image, from 1; 0 when it is about the image.
        what: what is lost.
    """

    image: str
    label: int
    what: str


@dataclass(slots=True)
class Losses:
    """Collects what a conversion loses."""

    entries: list[Loss] = field(default_factory=list)

    def add(self, image: LabelledImage, which: NDArray[np.bool_] | Sequence[bool], what: str) -> None:
        """One entry for each label of the image that is marked."""
        marked = np.flatnonzero(which).tolist()
        self.entries.extend(Loss(image.name, k + 1, what) for k in marked)

    def counts(self) -> dict[str, int]:
        """How many labels lose what, in the order of the first."""
        return dict(Counter(entry.what for entry in self.entries))


def write_text(path: Path, text: str) -> None:
    """Write a file of a folder that is not yet in its place, so nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
