"""A run: what it works with, and how its data are recognised again."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import squeezedet
from squeezedet.data.sample import ClassMap, Sample
from squeezedet.files import write_atomic
from squeezedet.training.config_file import toml_text
from squeezedet.training.recipe import Recipe
from squeezedet.version import __version__

if TYPE_CHECKING:
    from squeezedet.training.trainer import Trainer

# ---- run: A run: what it works with, and how its data are recognised again.


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


def remove_partial_files(folder: Path) -> None:
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


# ---- record: ``config.toml`` of a run folder: everything that made the run what it is.

RECORD = "config.toml"
GIT_SECONDS = 10
DESCRIBE = ("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def write_run_config(trainer: Trainer) -> None:
    """Write the record, or add to it what was called now; ``--config`` reads its recipe back.

    Raises:
        SqueezeDetError: the folder cannot be written.
    """
    run, path = trainer.run, trainer.run.folder / RECORD
    called = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "command": run.command}
    text = toml_text(
        {
            "recipe": asdict(trainer.recipe),
            "network": asdict(trainer.detector.config),
            "class_map": _class_map(trainer),
            "input": asdict(trainer.detector.input_rule),
            "run": {
                "detector": trainer.detector.kind,
                "seed": trainer.recipe.seed,
                "calls": [*_calls(path), f"{called['time']} {called['command']}".strip()],
                "data": {
                    "path": run.data,
                    "train_images": len(run.train),
                    "val_images": len(run.val),
                    "fingerprint": trainer.data,
                    "git_commit": git_commit(Path(run.data)) if run.data else None,
                },
                "versions": versions(),
                "machine": machine(),
            },
        }
    )
    write_atomic(path, text)


def _class_map(trainer: Trainer) -> dict[str, Any]:
    saved = asdict(trainer.run.class_map)
    return saved | {"aliases": dict(saved["aliases"])}


def _calls(path: Path) -> list[str]:
    """What was called before, if this is a run that goes on."""
    try:
        calls = tomllib.loads(path.read_text(encoding="utf-8"))["run"]["calls"]
        return [str(call) for call in calls]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def versions() -> dict[str, str | None]:
    """Of everything that the weights depend on."""
    return {
        "squeezedet": __version__,
        "squeezedet_git_commit": git_commit(Path(squeezedet.__file__).parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def machine() -> dict[str, Any]:
    """What computes."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def git_commit(path: Path) -> str | None:
    """The commit of the repository that a path lies in, ``-dirty`` when it has changed since."""
    git = shutil.which("git")
    folder = path if path.is_dir() else path.parent
    if git is None or not folder.is_dir():
        return None
    try:
        done = subprocess.run(  # noqa: S603 - nothing of it comes from a user
            [
                git,
                "-C",
                str(folder),
                "describe",
                "--always",
                "--abbrev=40",
                "--exclude=*",
                "--dirty",
            ],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
