"""How many of the labelled objects a detector finds among its N best boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import iou as box_iou
from squeezedet.data.sample import Objects
from squeezedet.evaluation.kitti import KITTI_CLASSES, ClassRule

# Rank of an object that no box of the image reaches.
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """For each labelled object of an image, the rank of the first raw box that reaches it.

    Attributes:
        same_class: (G,) rank among all boxes by falling score, 0 the best, of the first
            box of the object's class with enough IoU; ``NEVER`` if there is none.
        any_class: (G,) the same for a box of any class.
        boxes: how many raw boxes there are.
    """

    same_class: NDArray[np.int64]
    any_class: NDArray[np.int64]
    boxes: int


def first_ranks(
    objects: Objects,
    xyxy: NDArray[np.floating],
    score: NDArray[np.floating],
    class_id: NDArray[np.integer],
    *,
    names: Sequence[str],
    classes: Sequence[ClassRule] = KITTI_CLASSES,
) -> Ranks:
    """Rank the raw boxes of one image against its objects (see ``recall_curve``).

    Args:
        objects: the labels; those of the classes count, whatever height and occlusion.
        xyxy: (A, 4) boxes before top-N and NMS, pixels of the original image.
        score: (A,) scores.
        class_id: (A,) index into ``names``.
        names: class names of the detector.
        classes: the classes, and the IoU that reaching an object of each needs.
    """
    rules = {rule.name.lower(): rule for rule in classes}
    index = [i for i, t in enumerate(objects.types) if t.lower() in rules]
    order = np.argsort(-np.asarray(score), kind="stable")
    overlaps = box_iou(objects.xyxy[index].astype(np.float64), xyxy[order].astype(np.float64))
    types = [objects.types[i].lower() for i in index]
    needed = np.array([rules[t].min_overlap for t in types])
    reached = overlaps > needed.reshape(-1, 1)
    box_type = np.array([n.lower() for n in names])[class_id[order]]
    same = reached & (np.array(types, dtype=np.str_).reshape(-1, 1) == box_type)
    return Ranks(_first(same), _first(reached), len(order))


def _first(reached: NDArray[np.bool_]) -> NDArray[np.int64]:
    if not reached.size:
        return np.full(len(reached), NEVER)
    return np.where(reached.any(axis=1), reached.argmax(axis=1), NEVER)


@dataclass(frozen=True, slots=True)
class RecallCurve:
    """Recall against the number of boxes kept per image.

    Attributes:
        boxes: N, the boxes of highest score kept in each image; the last is all.
        same_class: recall when the box has the object's class.
        any_class: recall when any box will do.
        objects: how many labelled objects there are.
    """

    boxes: tuple[int, ...]
    same_class: tuple[float, ...]
    any_class: tuple[float, ...]
    objects: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return {
            "boxes": list(self.boxes),
            "same_class": list(self.same_class),
            "any_class": list(self.any_class),
            "objects": self.objects,
        }


def recall_curve(ranks: Sequence[Ranks]) -> RecallCurve:
    """Recall against N_box, the paper's Fig. 5: N doubles from 8 to all boxes.

    The paper counts all three classes together, at all levels. It says neither the
    IoU nor whether the class has to be right: the IoU here is KITTI's for each class,
    and both recalls are given. Several objects may share a box.
    """
    most = max((r.boxes for r in ranks), default=0)
    numbers = [8 * 2**k for k in range(32) if 8 * 2**k < most] + [most]
    none = np.empty(0, np.int64)
    same = np.concatenate([none, *(r.same_class for r in ranks)])
    anything = np.concatenate([none, *(r.any_class for r in ranks)])
    total = max(len(same), 1)
    return RecallCurve(
        tuple(numbers),
        tuple(float((same < n).sum() / total) for n in numbers),
        tuple(float((anything < n).sum() / total) for n in numbers),
        len(same),
    )
