"""The labels and detections of all images side by side, as the protocols compare them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import area
from squeezedet.data.sample import DONT_CARE, Objects
from squeezedet.detections import Detections
from squeezedet.errors import DataError

Indices = NDArray[np.intp]
Floats = NDArray[np.float64]
Curve = tuple[list[float], list[float]]
"""Recalls and precisions."""
T = TypeVar("T")

# Pairs held at once; bounds the memory whatever the number of boxes per image.
CHUNK_PAIRS = 1_000_000


def decimal(values: NDArray[np.float32]) -> Floats:
    """Float32 to float64 by the shortest decimal: the float32 of 0.3 becomes 0.3 itself.

    Labels are decimals and the original tools read them as double. A plain cast
    would turn 0.3 into 0.30000001, which is above a truncation limit of 0.3, and
    200.1 - 175.1 into a height that is not 25.
    """
    texts = np.asarray(values, np.float32).ravel().astype(str).tolist()
    return np.array([float(text) for text in texts], np.float64).reshape(np.shape(values))


def _touching(a: Floats, counts_a: Indices, b: Floats, counts_b: Indices) -> Iterator[tuple[Indices, Indices, Floats]]:
    """The pairs of boxes of one image that share an area, in chunks.

    Given (N, 4) and (M, 4) boxes, image after image, and (I,) numbers of them in each image: (P,) indices of a
    (ascending) and of b (ascending for each a), and (P,) areas; the pairs of one a are never split between chunks.
    """
    partners = np.repeat(counts_b, counts_a)
    first_b = np.repeat(np.cumsum(counts_b) - counts_b, counts_a)
    ends = np.cumsum(partners)
    start = 0
    while start < len(partners):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + CHUNK_PAIRS, side="right")))
        many = partners[start:stop]
        i = np.repeat(np.arange(start, stop), many)
        j = first_b[i] + np.arange(len(i)) - np.repeat(np.cumsum(many) - many, many)
        width = np.minimum(a[i, 2], b[j, 2]) - np.maximum(a[i, 0], b[j, 0])
        height = np.minimum(a[i, 3], b[j, 3]) - np.maximum(a[i, 1], b[j, 1])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        some = shared > 0
        yield i[some], j[some], shared[some]
        start = stop


def overlapping(
    a: Floats, counts_a: Indices, b: Floats, counts_b: Indices, above: float
) -> tuple[Indices, Indices, Floats]:
    """The pairs of one image whose intersection over union exceeds a threshold.

    Given (N, 4) and (M, 4) boxes, image after image, and (I,) numbers of them in each image: (P,) indices of a,
    (P,) indices of b, and (P,) IoUs strictly greater than ``above``; ascending by a, then b.
    """
    area_a, area_b = area(a), area(b)
    found = [(np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0))]
    for i, j, shared in _touching(a, counts_a, b, counts_b):
        overlap = shared / (area_a[i] + area_b[j] - shared)
        kept = overlap > above
        found.append((i[kept], j[kept], overlap[kept]))
    of_a, of_b, overlaps = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return of_a, of_b, overlaps


def covered(a: Floats, counts_a: Indices, b: Floats, counts_b: Indices) -> Floats:
    """(N,) largest part of each a, 0 to 1, that lies within a single b of its image."""
    largest = np.zeros(len(a))
    area_a = area(a)
    for i, _, shared in _touching(a, counts_a, b, counts_b):
        np.maximum.at(largest, i, shared / area_a[i])
    return largest


# ------------------------------------------------------------ all images side by side


@dataclass(frozen=True, slots=True, eq=False)
class FlatBoxes:
    """Labels and detections of I images, in the order of the images and of their files.

    Types and class names are compared without case, so they are lower case here.

    Attributes:
        gt_type: (N,) type of each labelled box, DontCare not among them.
        gt_xyxy: (N, 4) boxes in pixels.
        gt_truncated: (N,) 0 to 1. gt_occluded: (N,) 0 to 3.
        gt_count: (I,) labelled boxes of each image.
        dontcare_xyxy: (R, 4) DontCare boxes; ``dontcare_count`` (I,) in each image.
        det_type: (D,) class name of each detection.
        det_xyxy: (D, 4) boxes in pixels. det_score: (D,).
        det_count: (I,) detections of each image.
    """

    gt_type: NDArray[np.str_]
    gt_xyxy: Floats
    gt_truncated: Floats
    gt_occluded: NDArray[np.int64]
    gt_count: Indices
    dontcare_xyxy: Floats
    dontcare_count: Indices
    det_type: NDArray[np.str_]
    det_xyxy: Floats
    det_score: Floats
    det_count: Indices

    @property
    def gt_image(self) -> Indices:
        """(N,) index of the image of each labelled box."""
        return np.repeat(np.arange(len(self.gt_count)), self.gt_count)

    @property
    def det_image(self) -> Indices:
        """(D,) index of the image of each detection."""
        return np.repeat(np.arange(len(self.det_count)), self.det_count)


def concatenate(ground_truth: Sequence[Objects], detections: Sequence[Detections]) -> FlatBoxes:
    """Lay the labels of I images, and what was found in them, side by side.

    Raises:
        DataError: the numbers of images differ, or a box or score is not finite.
    """
    if len(ground_truth) != len(detections):
        raise DataError(
            f"{len(ground_truth)} labelled images against detections of {len(detections)}; "
            "evaluation needs one for each"
        )
    for d in detections:
        if not (np.isfinite(d.score).all() and np.isfinite(d.xyxy).all()):
            raise DataError(f"{d.image or 'detections'}: a box or a score is not finite")
    lower = {names: tuple(n.lower() for n in names) for names in {d.names for d in detections}}
    types = np.array([t.lower() for o in ground_truth for t in o.types], dtype=np.str_)
    xyxy = decimal(_stack([o.xyxy for o in ground_truth], (0, 4)))
    region = types == DONT_CARE.lower()
    counts = np.array([len(o) for o in ground_truth], np.intp)
    image = np.repeat(np.arange(len(counts)), counts)
    return FlatBoxes(
        gt_type=types[~region],
        gt_xyxy=xyxy[~region],
        gt_truncated=decimal(_stack([o.truncated for o in ground_truth], (0,)))[~region],
        gt_occluded=_stack([o.occluded for o in ground_truth], (0,)).astype(np.int64)[~region],
        gt_count=np.bincount(image[~region], minlength=len(counts)),
        dontcare_xyxy=xyxy[region],
        dontcare_count=np.bincount(image[region], minlength=len(counts)),
        det_type=np.array([lower[d.names][c] for d in detections for c in d.class_id.tolist()], dtype=np.str_),
        det_xyxy=decimal(_stack([d.xyxy for d in detections], (0, 4))),
        det_score=_stack([d.score for d in detections], (0,)).astype(np.float64),
        det_count=np.array([len(d) for d in detections], np.intp),
    )


def _stack(arrays: list[NDArray[Any]], empty: tuple[int, ...]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.empty(empty, np.float32)


# ------------------------------------------------------------ figures of classes, and how far they depend on the images


def per_class(
    results: Mapping[str, T | None], objects: Mapping[str, int], figure: Callable[[T], float | None]
) -> dict[str, float | None]:
    """A figure of each class: 0 for one that was never detected, None for one without an object."""
    return {
        name: ((0.0 if result is None else figure(result)) if objects[name] else None)
        for name, result in results.items()
    }


def mean_of(figures: Mapping[str, float | None]) -> float | None:
    """The mean over the classes that have a figure; None if none has."""
    values = [value for value in figures.values() if value is not None]
    return float(np.mean(values)) if values else None


@dataclass(frozen=True, slots=True)
class Intervals:
    """95% intervals.

    Attributes:
        draws: number of draws.
        bounds: figure ("car/easy/ap40", "map40", ...) -> lower and upper bound.
    """

    draws: int
    bounds: dict[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return {"draws": self.draws, "level": 0.95, "bounds": {name: list(pair) for name, pair in self.bounds.items()}}


def bootstrap(figures: Callable[[NDArray[np.int64]], Mapping[str, float]], images: int, draws: int) -> Intervals:
    """Intervals of figures by drawing the images with replacement, as many as there are.

    The 2.5th and 97.5th percentiles of many such draws are the interval (Efron's percentile method). A class without
    an object in any image is in no mean; one without an object in a draw alone counts as its protocol says there: 0
    by KITTI's, left out by VOC's. The same number of draws gives the same intervals. ``figures`` are given (images,)
    numbers that say how often each image counts.
    """
    share = np.full(images, 1 / max(images, 1))
    found = [figures(weights) for weights in np.random.default_rng(0).multinomial(images, share, size=draws)]
    bounds = {name: np.percentile([one[name] for one in found], (2.5, 97.5)).tolist() for name in found[0]}
    return Intervals(draws, {name: (low, high) for name, (low, high) in bounds.items()})
