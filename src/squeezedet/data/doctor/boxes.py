"""Boxes: outside the image, labelled twice, of odd shape; those without area no reader gives."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import area, clip, iou
from squeezedet.data.doctor.finding import Finding, Level, Place, some
from squeezedet.data.doctor.survey import Survey, place

EDGE_PX = 1.0  # labels that count pixels from 1, or to the last one, are no mistake
SAME_IOU = 0.95
LONG = 8.0

Worst = list[tuple[float, Place]]
"""Places and how bad each is."""


def check(survey: Survey) -> list[Finding]:
    """All findings about single boxes."""
    return [*_outside(survey), *_twice(survey), *_long(survey)]


def _finding(level: Level, name: str, found: Worst, sentence: str) -> Iterable[Finding]:
    """A finding of the boxes found, the worst first; none if there is nothing."""
    if found:
        where = [where for _, where in sorted(found, key=lambda pair: -pair[0])]
        count = sum(len(where.boxes) for where in where)
        images = len({where.name for where in where})
        head = f"{some(count, 'box', 'boxes')} in {some(images, 'image')}"
        yield Finding(level, name, tuple(where), count, f"{head} {sentence}")


def _outside(survey: Survey) -> Iterable[Finding]:
    """Boxes beyond the image's edge, and boxes that do not touch the image at all."""
    partly: Worst = []
    wholly: Worst = []
    for split, sample in survey.samples():
        look = survey.look(sample)
        xyxy = sample.objects.xyxy
        if look is None or not len(xyxy):
            continue
        beyond = np.concatenate([-xyxy[:, :2], xyxy[:, 2:] - [look.width, look.height]], axis=1)
        solid = area(xyxy) > 0
        gone = solid & (area(clip(xyxy, look.width, look.height)) <= 0)
        over = solid & ~gone & (beyond > EDGE_PX).any(axis=1)
        for bad, found in ((gone, wholly), (over, partly)):
            if bad.any():
                boxes = tuple(np.flatnonzero(bad).tolist())
                found.append((float(beyond[bad].max()), place(split, sample, boxes)))
    yield from _finding(
        Level.error,
        "outside",
        wholly,
        "wholly outside the image: is the label that of another image, or of another size?",
    )
    yield from _finding(
        Level.warning,
        "beyond-edge",
        partly,
        f"reaching more than {EDGE_PX:g} px beyond the image's edge: training cuts them there",
    )


def _twice(survey: Survey) -> Iterable[Finding]:
    """Two boxes on one object: of one type, or of two types that are both learned."""
    same: Worst = []
    other: Worst = []
    for split, sample in survey.samples():
        objects = sample.objects
        chosen = np.flatnonzero(survey.learned(sample) & (area(objects.xyxy) > 0))
        class_id = survey.class_map.class_ids(objects.types)
        for i, j, overlap in _alike(objects.xyxy, chosen):
            found = same if class_id[i] == class_id[j] else other
            found.append((overlap, place(split, sample, (i, j))))
    yield from _finding(
        Level.warning,
        "twice",
        same,
        f"where one object is labelled twice (one class, IoU above {SAME_IOU}): "
        "every detector misses one of the two; remove it",
    )
    yield from _finding(
        Level.warning,
        "two-classes",
        other,
        f"where one object has two classes (IoU above {SAME_IOU}): decide for one",
    )


def _alike(xyxy: NDArray[np.float32], chosen: NDArray[np.intp]) -> Iterable[tuple[int, int, float]]:
    """Pairs of the chosen boxes that are nearly the same box, and their IoU."""
    overlaps = np.triu(iou(xyxy[chosen], xyxy[chosen]), 1)
    for i, j in zip(*np.nonzero(overlaps > SAME_IOU), strict=True):
        yield int(chosen[i]), int(chosen[j]), float(overlaps[i, j])


def _long(survey: Survey) -> Iterable[Finding]:
    found: Worst = []
    for split, sample in survey.samples():
        size = sample.objects.xyxy[:, 2:] - sample.objects.xyxy[:, :2]
        solid = survey.learned(sample) & (size > 0).all(axis=1)
        ratio = size.max(axis=1, initial=0) / np.where(solid, size.min(axis=1, initial=np.inf), 1)
        long = solid & (ratio > LONG)
        if long.any():
            boxes = tuple(np.flatnonzero(long).tolist())
            found.append((float(ratio[long].max()), place(split, sample, boxes)))
    return _finding(
        Level.note,
        "long",
        found,
        f"with one side more than {LONG:g} times the other: often a slip, or cut by the edge",
    )
