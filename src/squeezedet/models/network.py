"""The contract between a detector and what trains and exports it: see ``DetectionNetwork``."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from squeezedet.errors import ModelError
from squeezedet.preprocess import InputRule
from squeezedet.runtime.postprocess import Selection


@dataclass(frozen=True, slots=True)
class Labels:
    """The labelled objects of a batch of images.

    Attributes:
        boxes: for each image (n, 4) float32 xyxy of its objects in input pixels; n may be 0.
        classes: for each image (n,) int64 class ids.
        regions: for each image (m, 4) float32 xyxy of areas that are neither object nor background.
        image_size: (width, height) of the input.
    """

    boxes: Sequence[Tensor]
    classes: Sequence[Tensor]
    regions: Sequence[Tensor]
    image_size: tuple[int, int]

    def without_empty(self) -> Labels:
        """The same without objects that have no area, of which there is no logarithm."""
        solid = [(b[:, 2:] > b[:, :2]).all(dim=1) for b in self.boxes]
        boxes = [b[s] for b, s in zip(self.boxes, solid, strict=True)]
        return replace(self, boxes=boxes, classes=[c[s] for c, s in zip(self.classes, solid, strict=True)])


@dataclass(frozen=True, slots=True)
class TensorTargets:
    """What a detector shall answer for a batch: tensors only, made in a worker process."""

    def to(self, device: torch.device | str) -> Self:
        """The same targets on another device."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **moved)

    def pin_memory(self) -> Self:
        """The same targets in memory from which a GPU copies without waiting."""
        return replace(self, **{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})


class DetectionNetwork(nn.Module, ABC):
    """A detector is ``forward``, ``loss`` and ``decode``; ``targets`` feeds ``loss``.

    Attributes:
        kind: the name of the class in checkpoints.
        config_type: the class of ``config``.
        config: what it was built from, a frozen dataclass of numbers, texts and tuples of them, which can be written as
            JSON; ``classes`` are the class names by id. ``type(network)(config)`` builds another one.
        input_rule: which size an image gets, unless a run or a card says otherwise. A ``fixed`` rule means that the
            network takes exactly this size.
        selection: how its boxes are chosen by default: candidates, NMS, top-N.
        score_odds: what the odds of each class's scores are divided by when it is exported, so that one threshold
            serves all classes; empty for scores as they are.
        frozen: layers that its paper does not train when they come trained, by name.
        sum_over_processes: sums a count over all processes that train together; set by training.
    """

    kind: ClassVar[str]
    config_type: ClassVar[type]

    config: Any
    input_rule: InputRule
    selection: Selection
    score_odds: tuple[float, ...] = ()
    frozen: tuple[str, ...] = ()
    sum_over_processes: Callable[[Tensor], Tensor] = staticmethod(lambda count: count)

    @classmethod
    def from_config(cls, config: Any) -> DetectionNetwork:
        """The network of a configuration; the configuration may choose a subclass."""
        return cls(config)

    @abstractmethod
    def forward(self, images: Tensor) -> Any:
        """(N, 3, H, W) RGB pixels from 0 to 255, any dtype, to what ``loss`` and ``decode`` read.

        The network subtracts its mean and swaps channels itself.
        """

    @abstractmethod
    def targets(self, labels: Labels) -> TensorTargets:
        """Give the objects of a batch to what shall learn them, on the CPU."""

    @abstractmethod
    def loss(self, raw: Any, targets: Any) -> dict[str, Tensor]:
        """The named terms, each with its weight; their sum is what is minimized.

        Computed in float32 whatever the precision of ``raw``; finite, and with a gradient, also for a batch without
        objects. Where several processes share a batch, each computes its share of every term: what it divides by
        (images, objects, anchors) is counted over all of them with ``sum_over_processes``, before any clamp, so that
        the shares add up to the term of the whole batch.
        """

    @abstractmethod
    def decode(self, raw: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(N, A, 4) xyxy boxes in input pixels and inside the image, (N, A) scores from 0 to 1, (N, A) int64 class ids:
        one row for each anchor, before any threshold and NMS.
        """

    def load_darknet(self, path: Path) -> tuple[str, ...]:
        """Copy the weights of a darknet ``.weights`` file; returns the names of the parameters that keep theirs.

        Raises:
            ModelError: the network is no YOLO of darknet, or the file is not one of it.
        """
        raise ModelError(f"{path}: darknet's weights are for a YOLO, not for {self.kind}")

    def published_backbone(self) -> dict[str, str]:
        """Tensor of a published SqueezeNet -> the parameter that takes it up; none if its backbone is no SqueezeNet."""
        return {}

    def folded(self) -> Self:
        """A copy in evaluation mode without batch normalization: kernels and biases take it.

        It answers the same, can be trained on, and is what compression prunes and shares.
        """
        return copy.deepcopy(self).eval()

    def fused(self) -> Self:
        """A copy in evaluation mode, for export: what can be folded into kernels is folded."""
        return self.folded()
