"""Distillation: nothing to learn from oneself, a gradient towards the teacher otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from squeezedet.errors import UsageError
from squeezedet.models import registry
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training.distillation import check_compatible, distillation_terms

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
