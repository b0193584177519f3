"""What goes wrong: the error analysis of the original code, and the confusion of classes.

The original looks, in each image, only at as many detections as there are objects,
best scores first, and asks of each which labelled box it overlaps most (any class):

- correct: same class, IoU >= 0.5, found first; repeated: found before;
- localisation: same class, 0.1 < IoU < 0.5; classification: another class, IoU > 0.1;
- background: IoU <= 0.1; missed: an object that no correct detection found.

Objects of the classes count at all heights, occlusions and truncations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import iou
from squeezedet.data.sample import Objects
from squeezedet.detections import Detections

Kind = Literal["correct", "localisation", "classification", "background", "repeated", "missed"]
KINDS: tuple[Kind, ...] = (
    "correct",
    "localisation",
    "classification",
    "background",
    "repeated",
    "missed",
)
TOUCHING, FOUND = 0.1, 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """One detection, or one missed object.

    Attributes:
        image: index of the image.
        kind: what it is.
        name: class of the detection; of the object if it was missed.
        score: of the detection; -1 for a missed object.
        xyxy: its box in pixels.
        truth: class of the labelled box that it overlaps most, "" for background.
        truth_xyxy: that box; None for background.
        overlap: IoU of the two.
    """

    image: int
    kind: Kind
    name: str
    score: float
    xyxy: tuple[float, ...]
    truth: str = ""
    truth_xyxy: tuple[float, ...] | None = None
    overlap: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class ErrorAnalysis:
    """The sum over all images.

    Attributes:
        detections: how many were looked at.
        objects: labelled boxes of the classes.
        cases: each of them.
    """

    detections: int
    objects: int
    cases: tuple[Case, ...]

    def count(self, kind: Kind) -> int:
        """How many cases there are of a kind."""
        return sum(case.kind == kind for case in self.cases)

    def worst(self, kind: Kind, most: int) -> list[Case]:
        """The cases of a kind of highest score; the largest of the missed objects."""

        def badness(case: Case) -> float:
            x1, y1, x2, y2 = case.xyxy
            return (x2 - x1) * (y2 - y1) if kind == "missed" else case.score

        return sorted((c for c in self.cases if c.kind == kind), key=badness, reverse=True)[:most]

    def to_dict(self) -> dict[str, Any]:
        """Counts, and the fractions that the original prints; None of nothing."""
        counts = {kind: self.count(kind) for kind in KINDS}
        return {
            "detections": self.detections,
            "objects": self.objects,
            "counts": counts,
            "of_detections": {
                kind: n / self.detections if self.detections else None
                for kind, n in counts.items()
                if kind != "missed"
            },
            "recall": counts["correct"] / self.objects if self.objects else None,
        }


def analyse(
    ground_truth: Sequence[Objects],
    detections: Sequence[Detections],
    classes: Sequence[str],
) -> ErrorAnalysis:
    """The original's error analysis.

    Two of its oddities are gone: a detection's box is the one that was judged, not one
    pixel wider, and no detections at all are no division by zero. As in the original,
    an image without objects is skipped.

    Args:
        ground_truth: the labels of each image.
        detections: what was found in the same images.
        classes: the classes; compared without case.
    """
    cases: list[Case] = []
    looked_at = objects_seen = 0
    for image, (objects, found) in enumerate(zip(ground_truth, detections, strict=True)):
        types, boxes = of_classes(objects, classes)
        best = _best(found, classes, len(types))
        looked_at += len(best)
        objects_seen += len(types)
        cases += _cases(image, types, boxes, best)
    return ErrorAnalysis(looked_at, objects_seen, tuple(cases))


def of_classes(objects: Objects, classes: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
    """The lower-case types and (G, 4) boxes of the labelled objects of some classes."""
    names = {name.lower() for name in classes}
    index = [i for i, kind in enumerate(objects.types) if kind.lower() in names]
    return [objects.types[i].lower() for i in index], objects.xyxy[index]


def _best(found: Detections, classes: Sequence[str], most: int) -> Detections:
    """The detections of the classes with the highest scores, best first."""
    names = {name.lower() for name in classes}
    known = np.array([name.lower() in names for name in found.names], dtype=bool)
    mine = np.flatnonzero(known[found.class_id]) if len(found) else np.empty(0, np.intp)
    order = np.argsort(-found.score[mine], kind="stable")[:most]
    return found[mine[order]]


def _cases(
    image: int, types: list[str], boxes: NDArray[np.float32], found: Detections
) -> list[Case]:
    seen: set[int] = set()
    cases: list[Case] = []
    overlaps = iou(found.xyxy.astype(np.float64), boxes.astype(np.float64))
    for detection, row in zip(found, overlaps, strict=True):
        g = int(row.argmax())
        overlap = float(row[g])
        kind = _kind(overlap, detection.name.lower() == types[g], g in seen)
        if kind == "correct":
            seen.add(g)
        near = kind != "background"
        cases.append(
            Case(
                image,
                kind,
                detection.name,
                detection.score,
                detection.xyxy,
                truth=types[g] if near else "",
                truth_xyxy=tuple(boxes[g].tolist()) if near else None,
                overlap=overlap,
            )
        )
    missed = (g for g in range(len(types)) if g not in seen)
    cases += [Case(image, "missed", types[g], -1.0, tuple(boxes[g].tolist())) for g in missed]
    return cases


def _kind(overlap: float, same_class: bool, seen: bool) -> Kind:
    if overlap <= TOUCHING:
        return "background"
    if not same_class:
        return "classification"
    if overlap < FOUND:
        return "localisation"
    return "repeated" if seen else "correct"


# ------------------------------------------------------------------ confusion


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Which class was taken for which, at one score.

    Attributes:
        classes: the classes.
        score: detections count from here on.
        table: (I, C + 1, C + 1) of each image; rows are what is there, columns what was
            found; the last row is nothing (false alarms), the last column is missed.
    """

    classes: tuple[str, ...]
    score: float
    table: NDArray[np.int64]


def confuse(
    ground_truth: Sequence[Objects],
    detections: Sequence[Detections],
    classes: Sequence[str],
    score: float,
) -> Confusion:
    """Match boxes of any class by falling score, one to one, IoU >= 0.5, and compare classes.

    This is stricter than KITTI's rules: a box on a van or in a DontCare area is a false
    alarm here, and every object counts, however small or hidden.
    """
    names = [name.lower() for name in classes]
    table = np.zeros((len(ground_truth), len(names) + 1, len(names) + 1), np.int64)
    for image, (objects, found) in enumerate(zip(ground_truth, detections, strict=True)):
        types, boxes = of_classes(objects, classes)
        best = _best(found[found.score >= np.float32(score)], classes, len(found))
        overlaps = iou(best.xyxy.astype(np.float64), boxes.astype(np.float64))
        free = np.ones(len(types), dtype=bool)
        for detection, row in zip(best, overlaps, strict=True):
            g = int((row * free).argmax()) if len(row) else -1
            matched = g >= 0 and row[g] >= FOUND and bool(free[g])
            there = names.index(types[g]) if matched else len(names)
            table[image, there, names.index(detection.name.lower())] += 1
            if matched:
                free[g] = False
        for kind, lost in zip(types, free, strict=True):
            table[image, names.index(kind), len(names)] += int(lost)
    return Confusion(tuple(classes), score, table)
