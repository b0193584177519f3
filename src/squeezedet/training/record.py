"""``config.toml`` of a run folder: everything that made the run what it is."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tomllib
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import squeezedet
from squeezedet.files import write_atomic
from squeezedet.training.toml_text import toml_text
from squeezedet.training.trainer import Trainer
from squeezedet.version import __version__

RECORD = "config.toml"
GIT_SECONDS = 10
DESCRIBE = ("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def write_record(trainer: Trainer) -> None:
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
