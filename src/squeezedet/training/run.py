"""A run: what it works with, and how its data are recognised again."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from squeezedet.data.sample import ClassMap, Sample
from squeezedet.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run works with.

    Attributes:
        folder: gets all that the run writes, see docs/training.md.
        train: labelled images to learn from.
        val: labelled images to judge by; may be empty.
        class_map: which label types are learnt.
        recipe: how.
        quiet: print nothing.
        max_seconds: stop after so many, with everything that a run's end brings.
        tensorboard: write TensorBoard's event files, too.
        data: where the images come from, for the record.
        command: what was called, for the record.
    """

    folder: Path
    train: Sequence[Sample]
    val: Sequence[Sample]
    class_map: ClassMap
    recipe: Recipe
    quiet: bool = False
    max_seconds: float = math.inf
    tensorboard: bool = False
    data: str = ""
    command: str = ""

    @property
    def last(self) -> Path:
        """The checkpoint to continue from."""
        return self.folder / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights that did best on validation."""
        return self.folder / "best.safetensors"


# What ``files.replacing`` calls a file before it is whole.
UNFINISHED = re.compile(r"\..+\.[a-z0-9_]{8}(\.\w+)?")


def sweep(folder: Path) -> None:
    """Remove the unfinished files that a killed run has left."""
    for path in folder.rglob(".*"):
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def fingerprint(samples: Sequence[Sample], class_map: ClassMap) -> str:
    """A checksum of what is learnt: ids, labels, and what the labels mean."""
    digest = hashlib.sha256(repr(class_map).encode())
    for sample in samples:
        digest.update(f"{sample.id} {sample.objects.types}".encode())
        digest.update(sample.objects.xyxy.tobytes())
    return digest.hexdigest()
