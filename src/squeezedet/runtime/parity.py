"""Whether two runs of one model find the same: the same boxes, with the same scores.

Every box that one of them is sure of needs a partner among all anchors of the other: the one of
its class that overlaps it most, by an IoU of at least 0.5. Sure are the boxes that would be
reported, and at least the best few, so that an empty street is no agreement. NMS of the other
side does not matter: where scores are equal but for rounding, it may keep a neighbour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import iou
from squeezedet.errors import ModelError
from squeezedet.media.images import Frame, read_image
from squeezedet.preprocess import fit
from squeezedet.runtime.bundle import WEIGHTS, Bundle
from squeezedet.runtime.postprocess import RawBoxes, Selection, select

MATCH_IOU = 0.5
SAME_IOU = 0.001
"""Of boxes that overlap equally but for so much, the one of the closest score is the partner."""
LEAST_SIDE_PX = 1.0
"""A box cut to less by the edge overlaps nothing, and is not compared."""
AT_LEAST = 5
"""So many boxes are compared although none is sure enough to be reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What may differ.

    Attributes:
        box_px: the largest difference of a corner, in pixels of the input.
        score: the largest difference of a score.
        lost: the largest share of boxes without partner.
        quantile: the share of the boxes whose scores are held to ``score``; any outlier of one box may go further.
    """

    box_px: float
    score: float
    lost: float
    quantile: float = 1.0

    def __str__(self) -> str:
        corners = f"{self.box_px:g} px, " if math.isfinite(self.box_px) else ""
        share = f" of {self.quantile:.0%} of the boxes" if self.quantile < 1 else ""
        return f"{corners}{self.score:g} in score{share} and {self.lost:.0%} of the boxes missing"


FLOAT = Tolerance(box_px=0.5, score=0.01, lost=0.0)
"""Two float32 networks: nothing but rounding."""
INT8 = Tolerance(box_px=math.inf, score=0.3, lost=0.3, quantile=0.95)
"""A network in int8 beside one in float32, or two engines' int8: a guard against a broken file.
Corners of large boxes that nobody is sure of move by dozens of pixels, so a partner's overlap
has to do. One score in a hundred moves by 0.5 although AP stays (95 % move by less than 0.1); where
a layer is shuffled or missing 95 % move by up to 0.4 and more. What int8 costs is measured as AP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far two runs are from each other: the largest differences, as in ``Tolerance``.

    Attributes:
        boxes: how many were compared, those of both sides.
        lost: boxes without partner.
        scores: the difference of each score.
    """

    boxes: int = 0
    box_px: float = 0.0
    score: float = 0.0
    lost: int = 0
    scores: tuple[float, ...] = field(default=(), compare=False, repr=False)

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            boxes=self.boxes + other.boxes,
            box_px=max(self.box_px, other.box_px),
            score=max(self.score, other.score),
            lost=self.lost + other.lost,
            scores=self.scores + other.scores,
        )

    def within(self, tolerance: Tolerance) -> bool:
        score = float(np.quantile(self.scores or [0.0], tolerance.quantile, method="lower"))
        return self.box_px <= tolerance.box_px and score <= tolerance.score and self.lost <= tolerance.lost * self.boxes

    def __str__(self) -> str:
        text = f"boxes by at most {self.box_px:.3g} px, scores by at most {self.score:.2g}"
        return f"{text}, {self.lost} of {self.boxes} boxes missing" if self.lost else text


def compare(first: RawBoxes, second: RawBoxes, selection: Selection, *, chosen: bool = False) -> Difference:
    """Two answers for the same pixels.

    Args:
        first: the boxes of every anchor, in pixels of the input.
        second: the same, from another engine or file.
        selection: how they are chosen.
        chosen: ``second`` holds only what its graph chose to report: a box within a hundredth
            of the threshold need not be there.
    """
    every = replace(selection, score=0.0, vote_iou=1.0, part_of=())
    at_least, margin = (0, FLOAT.score) if chosen else (AT_LEAST, 0.0)
    floor = selection.score + margin
    there = _one_way(select(first, every), second, floor, at_least)
    return there + _one_way(select(second, every), first, floor, at_least)


def _one_way(own: RawBoxes, other: RawBoxes, floor: float, at_least: int) -> Difference:
    """The partners of the boxes of one side, ordered by score, among all anchors of the other."""
    solid = ((own.xyxy[:, 2:] - own.xyxy[:, :2]) >= LEAST_SIDE_PX).all(axis=1)
    xyxy, score, class_id = own.xyxy[solid], own.score[solid], own.class_id[solid]
    count = max(int((score >= floor).sum()), min(at_least, len(score)))
    total = Difference(boxes=count)
    overlaps = iou(xyxy[:count], other.xyxy)
    overlaps[class_id[:count, None] != other.class_id[None, :]] = 0
    for i, row in enumerate(overlaps):
        best = float(row.max(initial=0.0))
        if best < MATCH_IOU:
            total += Difference(lost=1)
            continue
        partners = np.flatnonzero(row >= best - SAME_IOU)
        apart = np.abs(other.score[partners] - score[i])
        j = partners[apart.argmin()]
        box_px = float(np.abs(xyxy[i] - other.xyxy[j]).max())
        score_move = float(apart.min())
        total += Difference(box_px=box_px, score=score_move, scores=(score_move,))
    return total


def is_int8(model: Bundle) -> bool:
    """Whether a graph computes in 8 bits: it holds operators that quantize."""
    return any(name in model.graph for name in (b"QuantizeLinear", b"FakeQuantize"))


def sample_frame() -> Frame:
    """The picture that comes with the package; a ModelError if it is not there."""
    path = next(iter(sorted(WEIGHTS.glob("demo.*"))), None)
    if path is None:
        raise ModelError(f"{WEIGHTS}: the package holds no picture; install it again")
    return read_image(path, path.name)


def input_pixels(frame: Frame, model: Bundle) -> NDArray[np.uint8]:
    """What the network sees of a picture: (H, W, 3) uint8."""
    return fit(frame.pixels, model.card.input)


def sample_pixels(model: Bundle, pictures: tuple[Path, ...] = ()) -> list[NDArray[np.uint8]]:
    """The package's picture, and others, as the network sees them."""
    frames = [sample_frame(), *(read_image(path) for path in pictures)]
    return [input_pixels(frame, model) for frame in frames]
