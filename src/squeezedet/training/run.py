"""A run: what it works with, and how its data are recognised again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from squeezedet.data.sample import ClassMap, Sample
from squeezedet.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run works with.

    Attributes:
        folder: gets ``metrics.csv``, ``last.safetensors`` and ``best.safetensors``.
        train: labelled images to learn from.
        val: labelled images to judge by; may be empty.
        class_map: which label types are learnt.
        recipe: how.
        quiet: print nothing.
    """

    folder: Path
    train: Sequence[Sample]
    val: Sequence[Sample]
    class_map: ClassMap
    recipe: Recipe
    quiet: bool = False


def fingerprint(samples: Sequence[Sample], class_map: ClassMap) -> str:
    """A checksum of what is learnt: ids, labels, and what the labels mean."""
    digest = hashlib.sha256(repr(class_map).encode())
    for sample in samples:
        digest.update(f"{sample.id} {sample.objects.types}".encode())
        digest.update(sample.objects.xyxy.tobytes())
    return digest.hexdigest()
