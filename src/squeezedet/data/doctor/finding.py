"""Finding: one thing that the doctor says about a data set."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from squeezedet.data.sample import Sample


class Level(StrEnum):
    """How bad it is."""

    error = "error"
    """Training would stop, learn something wrong, or be judged wrongly."""
    warning = "warning"
    """Worth a look before hours are spent."""
    note = "note"
    """Good to know."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where something was found.

    Attributes:
        name: for people: a file and its line, or the split and the id of an image.
        sample: the image, if there is one that can be shown.
        boxes: which of its boxes.
        other: a second image to see beside the first.
    """

    name: str
    sample: Sample | None = None
    boxes: tuple[int, ...] = ()
    other: Sample | None = None

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
    where: tuple[Place, ...]
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


def some(number: int, one: str, many: str = "") -> str:
    """``3 boxes``, ``1 box``: a number and what it counts."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
