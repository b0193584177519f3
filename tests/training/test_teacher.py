"""Distillation: nothing to learn from oneself, a gradient to the teacher otherwise; a run keeps its teacher."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from squeezedet.errors import UsageError
from squeezedet.models import registry
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training import checkpoint
from squeezedet.training.loop import run_training as train
from squeezedet.training.run_folder import Run
from squeezedet.training.trainer import Teacher, check_compatible, distillation_terms

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
    shipped = checkpoint.load_detector(str(SLIM))
    assert Teacher(str(SLIM), shipped).checksum


# ------------------------------------------------------------ the terms

CONFIG = ConvDetConfig(size=(64, 32))


@pytest.fixture(scope="module")
def student() -> ConvDet:
    with torch.device("meta"):
        return ConvDet(CONFIG)


def maps() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(2, 72, 2, 4, generator=generator), torch.randn(2, 72, 2, 4, generator=generator))


def test_a_network_has_nothing_to_learn_from_itself(student: ConvDet) -> None:
    raw, _ = maps()
    raw.requires_grad_()
    terms = distillation_terms(student, raw, raw.detach())
    assert all(abs(float(term.detach())) < 1e-6 for term in terms.values())
    (gradient,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), raw)
    assert gradient.abs().max() < 1e-6


def test_steps_lead_to_the_teacher(student: ConvDet) -> None:
    raw, taught = maps()
    raw.requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=0.1)
    first = float("nan")
    for step in range(200):
        terms = distillation_terms(student, raw, taught)
        total = torch.stack(list(terms.values())).sum()
        first = float(total.detach()) if step == 0 else first
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert float(total.detach()) < 0.01 * first
    logits, confidence, deltas = student.split(raw.detach())
    t_logits, t_confidence, t_deltas = student.split(taught)
    assert (confidence.sigmoid() - t_confidence.sigmoid()).abs().max() < 0.1
    assert (deltas - t_deltas).abs().max() < 0.05
    assert (logits.softmax(-1) - t_logits.softmax(-1)).abs().max() < 0.05


def test_a_teacher_that_is_sure_of_nothing_teaches_no_box(student: ConvDet) -> None:
    raw, taught = maps()
    taught[:, 27:36] = -30.0  # the confidences of nine anchors, after their 27 class logits
    terms = distillation_terms(student, raw, taught)
    assert terms["distill_box"] < 1e-6
    assert terms["distill_class"] < 1e-6
    assert terms["distill_conf"] > 0


def test_networks_that_do_not_fit_are_an_error(student: ConvDet) -> None:
    with torch.device("meta"):
        other = ConvDet(replace(CONFIG, classes=("sign",)))
        ssd = registry.build("tiny-ssd")
    check_compatible(student, student, "x")
    with pytest.raises(UsageError, match=r"x: the teacher has other classes"):
        check_compatible(student, other, "x")
    with pytest.raises(UsageError, match="both be ConvDet"):
        check_compatible(student, ssd, "x")
