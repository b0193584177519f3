"""Survey: all that the checks look at, read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.anchors import SizeRule
from squeezedet.data.dataset import Dataset
from squeezedet.data.doctor.finding import Place
from squeezedet.data.doctor.look import Look
from squeezedet.data.sample import ClassMap, Sample


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
    rule: SizeRule
    looks: Mapping[Path, Look | str]

    @property
    def splits(self) -> Mapping[str, tuple[Sample, ...]]:
        """The samples of each split."""
        return self.dataset.splits

    def samples(self) -> Iterator[tuple[str, Sample]]:
        """Each image once, with the first split that has it: splits may contain each other."""
        seen: set[Path] = set()
        for split, samples in self.splits.items():
            for sample in samples:
                if sample.image not in seen:
                    seen.add(sample.image)
                    yield split, sample

    def look(self, sample: Sample) -> Look | None:
        """What was seen of an image; None if it cannot be decoded."""
        look = self.looks[sample.image]
        return look if isinstance(look, Look) else None

    def learned(self, sample: Sample) -> NDArray[np.bool_]:
        """(N,) True for the boxes that a detector learns as objects."""
        objects = sample.objects
        return np.asarray((self.class_map.class_ids(objects.types) >= 0) & ~objects.ignored)

    def nested(self, one: str, other: str) -> bool:
        """True if one of two splits holds all of the other, as trainval holds train."""
        a, b = ({s.image for s in self.splits[name]} for name in (one, other))
        return a <= b or b <= a


def place(split: str, sample: Sample, boxes: tuple[int, ...] = ()) -> Place:
    """The place of boxes of a sample."""
    return Place(f"{split}/{sample.id}", sample, boxes)
