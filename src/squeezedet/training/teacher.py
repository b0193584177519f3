"""The teacher of a run: a trained network whose answers are learnt from beside the labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from squeezedet.detectors.convdet import ConvDet
from squeezedet.detectors.imitation import check_teachable, imitation
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.training.opened import open_detector


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """A network that teaches.

    Attributes:
        network: in evaluation mode; it learns nothing.
        checksum: of its weights: a run that goes on must have the same teacher.
    """

    network: DetectionNetwork
    checksum: str

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) RGB pixels, after augmentation, to the teacher's map."""
        taught: Tensor = self.network(images)
        return taught

    def terms(self, student: DetectionNetwork, raw: Tensor, taught: Tensor) -> dict[str, Tensor]:
        """The terms of the loss that it adds, see ``imitation``; the student is a ConvDet."""
        assert isinstance(student, ConvDet)  # noqa: S101 - open_teacher has seen to it
        return imitation(student, raw, taught)


def open_teacher(source: str, student: DetectionNetwork) -> Teacher:
    """Read a teacher, and find out whether it can teach this network.

    Args:
        source: the name of a shipped model, or the path of a model file or of a checkpoint.
        student: who will learn.

    Raises:
        UsageError: there is no such file, or the networks do not fit each other.
        ModelError: the file is damaged.
    """
    network = open_detector(source).requires_grad_(False)
    check_teachable(student, network, source)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return Teacher(network, digest.hexdigest())
