"""Distillation (arXiv 1503.02531): a ConvDet network learns from what a larger one says of the same image.

A detector says mostly "nothing here", so what the teacher says of an anchor counts by how sure it is of an object there
(arXiv 1805.06361).
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from squeezedet.errors import UsageError
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezedet import ConvDet, quality_focal
from squeezedet.training.checkpoint import load_detector

LOSS_CONFIDENCE, LOSS_CLASS, LOSS_BOX = 4.0, 1.0, 5.0
"""As the weights of the terms that the labels give."""


class Teacher:
    """A network that teaches ``student``, read from a shipped model, a model file or a checkpoint.

    Attributes:
        checksum: of its weights; a run that resumes needs the same.

    Raises:
        UsageError: there is no such file, or the networks do not fit each other.
        ModelError: the file is damaged.
    """

    def __init__(self, source: str, student: DetectionNetwork, device: torch.device | str = "cpu") -> None:
        network = load_detector(source).requires_grad_(False)
        check_compatible(student, network, source)
        assert isinstance(student, ConvDet)  # noqa: S101 - just checked
        digest = hashlib.sha256()
        for tensor in network.state_dict().values():
            digest.update(tensor.contiguous().numpy().tobytes())
        self.checksum = digest.hexdigest()
        self._student = student
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) RGB pixels, after augmentation, to the teacher's map."""
        answer: Tensor = self._network(images)
        return answer

    def terms(self, raw: Tensor, answer: Tensor) -> dict[str, Tensor]:
        """The terms of the loss that it adds, of the student's map and its own."""
        return distillation_terms(self._student, raw, answer)


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
