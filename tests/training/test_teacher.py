"""A run with a teacher: its terms are learnt, and the run goes on with the same one only."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from squeezedet.errors import UsageError
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training import checkpoint
from squeezedet.training.distillation import Teacher
from squeezedet.training.loop import run_training as train
from squeezedet.training.run_folder import Run

from ..conftest import SLIM


def write_teacher(path: Path, seed: int, classes: tuple[str, ...] | None = None) -> str:
    torch.manual_seed(seed)
    config = ConvDetConfig(size=(192, 96))
    teacher = ConvDet(config if classes is None else ConvDetConfig(classes=classes))
    tensors = {f"model.{name}": tensor for name, tensor in teacher.state_dict().items()}
    checkpoint.write(path, tensors, {"config": checkpoint.describe(teacher)})
    return str(path)


def test_a_run_learns_from_its_teacher(
    small_run: Callable[..., Run], small_detector: Callable[[], ConvDet], tmp_path: Path
) -> None:
    teacher = write_teacher(tmp_path / "teacher.safetensors", seed=5)
    run = small_run(teacher=teacher, steps=2)
    train(small_detector(), run)
    with (run.folder / "metrics.csv").open(encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    assert all(float(last[name]) > 0 for name in ("distill_conf", "distill_class", "distill_box"))
    write_teacher(tmp_path / "teacher.safetensors", seed=6)
    with pytest.raises(UsageError, match="was written with another teacher"):
        train(small_detector(), run, resume=True)


def test_a_teacher_of_other_classes_is_an_error(small_detector: Callable[[], ConvDet], tmp_path: Path) -> None:
    other = write_teacher(tmp_path / "other.safetensors", 5, ("sign",))
    with pytest.raises(UsageError, match="the teacher has other classes"):
        Teacher(other, small_detector())
    with pytest.raises(UsageError, match="no such model"):
        Teacher(str(tmp_path / "none.safetensors"), small_detector())


@pytest.mark.slow
def test_the_shipped_model_can_teach(small_detector: Callable[[], ConvDet]) -> None:
    from squeezedet.training.checkpoint import load_detector

    shipped = load_detector(str(SLIM))
    assert Teacher(str(SLIM), shipped).checksum
