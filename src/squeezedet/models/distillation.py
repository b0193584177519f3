"""Distillation (arXiv 1503.02531): a ConvDet network learns from what a larger one says of the same image.

A detector says mostly "nothing here", so what the teacher says of an anchor counts by how sure it is of an object there
(arXiv 1805.06361).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from squeezedet.errors import UsageError
from squeezedet.models.squeezedet import ConvDet, quality_focal

LOSS_CONFIDENCE, LOSS_CLASS, LOSS_BOX = 4.0, 1.0, 5.0
"""As the weights of the terms that the labels give."""


def check_compatible(student: object, teacher: object, where: str) -> None:
    """Find out whether a network can learn from another's map.

    Raises:
        UsageError: one of them is no ConvDet, or classes, anchors or geometry differ.
    """
    if not isinstance(student, ConvDet) or not isinstance(teacher, ConvDet):
        raise UsageError(f"{where}: a teacher and its student must both be ConvDet networks")
    for field in ("classes", "anchors", "geometry"):
        if getattr(student.config, field) != getattr(teacher.config, field):
            raise UsageError(f"{where}: the teacher has other {field} than the network")


def distillation_terms(student: ConvDet, raw: Tensor, answer: Tensor) -> dict[str, Tensor]:
    """The terms that pull a student's map to its teacher's.

    Confidence: quality focal loss against the teacher's confidence. Class: the Kullback-Leibler divergence from the
    teacher's classes. Box: squared differences of the deltas. The last two are weighted by the teacher's confidence;
    all are divided by its sum, the number of objects that the teacher sees.

    Args:
        student: whose anchors and classes both have.
        raw: (N, K * (C + 5), rows, columns), the student's.
        answer: of the same shape, the teacher's.
    """
    logits, confidence, deltas = (part.float() for part in student.split(raw))
    t_logits, t_confidence, t_deltas = (part.float() for part in student.split(answer))
    sure = t_confidence.sigmoid()
    objects = student.sum_over_processes(sure.sum()).clamp(min=1)
    divergence = F.kl_div(logits.log_softmax(-1), t_logits.log_softmax(-1), reduction="none", log_target=True)
    squares = (deltas - t_deltas).square()
    return {
        "distill_conf": LOSS_CONFIDENCE * quality_focal(confidence, sure).sum() / objects,
        "distill_class": LOSS_CLASS * (sure * divergence.sum(-1)).sum() / objects,
        "distill_box": LOSS_BOX * (sure * squares.sum(-1)).sum() / objects,
    }
