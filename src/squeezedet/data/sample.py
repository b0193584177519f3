"""Sample: one labelled image, whatever format it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
            judging: VOC's difficult, COCO's crowd. None given means none is. DontCare needs
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


DONT_CARE = "DontCare"
"""KITTI's type for areas that nobody labelled; the same name stands for them in every layout."""


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
    """

    id: str
    image: Path
    objects: Objects


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
    ("car", "pedestrian", "cyclist"),
    aliases=(("van", "car"),),
    regions=("DontCare", "Person_sitting"),
)
