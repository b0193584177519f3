"""A run: what it works with, and how its data are recognised again."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from squeezedet.benchmark.machine import describe
from squeezedet.data.sample import ClassMap, Sample
from squeezedet.errors import SqueezeDetError
from squeezedet.files import open_regular, read_text, remove_partial, write_atomic
from squeezedet.training.distributed import job
from squeezedet.training.recipe import Recipe, to_toml
from squeezedet.version import __version__

if TYPE_CHECKING:
    from squeezedet.training.callbacks import Callback
    from squeezedet.training.trainer import Trainer

LAST = "last.safetensors"
LOG = logging.getLogger("squeezedet.training")
SAMPLED_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run works with.

    Attributes:
        folder: gets all that the run writes, see docs/training.md.
        train: labelled images to learn from.
        val: labelled images to validate on; may be empty.
        class_map: which label types are learned.
        recipe: how.
        quiet: print nothing.
        max_seconds: stop after so many, with everything that a run's end brings.
        callbacks: told of every step, validation and checkpoint.
        name: of the model, for the record.
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
    callbacks: Sequence[Callback] = ()
    name: str = ""
    data: str = ""
    command: str = ""

    @property
    def last(self) -> Path:
        return self.folder / LAST

    @property
    def best(self) -> Path:
        return self.folder / "best.safetensors"


# What a run writes: a killed one leaves unfinished files of these names, and of no others.
FILES = (
    LAST,
    "best.safetensors",
    "metrics.csv",
    "config.toml",
    "index.html",
    "pictures/predictions.png",
    *(f"pictures/batch-{step}.png" for step in range(3)),
)


def remove_partial_files(folder: Path) -> None:
    for name in FILES:
        remove_partial(folder / name)


def fingerprint(samples: Sequence[Sample], class_map: ClassMap) -> str:
    """A checksum of what is learned: ids, labels, and what the labels mean."""
    digest = hashlib.sha256(repr(class_map).encode())
    for sample in samples:
        digest.update(f"{sample.id} {sample.objects.types}".encode())
        digest.update(sample.objects.xyxy.tobytes())
    return digest.hexdigest()


def image_fingerprint(samples: Sequence[Sample]) -> str:
    """A checksum of the image files: the size of each, its first and its last 64 kB."""
    digest = hashlib.sha256()
    for sample in samples:
        with open_regular(sample.image, what="image") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{size} ".encode() + file.read(SAMPLED_BYTES))
            if size > SAMPLED_BYTES:
                file.seek(max(SAMPLED_BYTES, size - SAMPLED_BYTES))
                digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()


# ------------------------------------------------------------ config.toml

RECORD = "config.toml"


def write_run_config(trainer: Trainer) -> None:
    """Write the record, or add to it what was called now; its recipe can be read back as ``config``."""
    run, path = trainer.run, trainer.run.folder / RECORD
    called = f"{datetime.now(UTC).isoformat(timespec='seconds')} {run.command}".strip()
    before = [str(call) for call in read_record(path).get("calls") or []]
    class_map = asdict(run.class_map)
    machine = describe()
    text = to_toml(
        {
            "recipe": asdict(trainer.recipe),
            "network": asdict(trainer.detector.config),
            "class_map": class_map | {"aliases": dict(class_map["aliases"])},
            "input": asdict(trainer.detector.input_rule),
            "run": {
                "name": run.name,
                "detector": trainer.detector.kind,
                "seed": trainer.recipe.seed,
                "calls": [*before, called],
                "torchrun": job(),
                "data": {
                    "path": run.data,
                    "train_images": len(run.train),
                    "val_images": len(run.val),
                    "fingerprint": trainer.data,
                    "images_fingerprint": trainer.images,
                },
                "versions": {
                    "squeezedet": __version__,
                    "python": machine.python,
                    "torch": torch.__version__,
                    "numpy": np.__version__,
                },
                "machine": {
                    "system": machine.system,
                    "processor": machine.cpu,
                    "cores": machine.cores,
                    "threads": torch.get_num_threads(),
                },
            },
        }
    )
    write_atomic(path, text)


def read_record(path: Path) -> dict[str, Any]:
    """The table [run] of a ``config.toml``; nothing where there is none that can be read."""
    try:
        record = tomllib.loads(read_text(path))["run"]
    except (SqueezeDetError, ValueError, KeyError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
