"""All pairs of boxes that share an image, for every image at once.

Protocols compare boxes of one image only. Looping over thousands of small
images costs more than the arithmetic, so the boxes of all images lie side by
side in one array, image after image, and the pairs are listed as two indices.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]
Floats = NDArray[np.float64]

# Pairs held at once; bounds the memory whatever the number of boxes per image.
CHUNK_PAIRS = 1_000_000


def decimal(values: NDArray[np.float32]) -> Floats:
    """Float32 to float64 by the shortest decimal: the float32 of 0.3 becomes 0.3 itself.

    Labels are decimals and the referees' tools read them as double. A plain cast
    would turn 0.3 into 0.30000001, which is above a truncation limit of 0.3, and
    200.1 - 175.1 into a height that is not 25.
    """
    texts = np.asarray(values, np.float32).ravel().astype(str).tolist()
    return np.array([float(text) for text in texts], np.float64).reshape(np.shape(values))


def image_pairs(counts_a: Indices, counts_b: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Indices of every a beside every b of the same image, in chunks.

    Args:
        counts_a: (I,) number of boxes a of each image.
        counts_b: (I,) number of boxes b of each image.

    Yields:
        (P,) indices of a (ascending) and (P,) indices of b (ascending for each a);
        the pairs of one a are never split between chunks.
    """
    partners = np.repeat(counts_b, counts_a)
    first_b = np.repeat(np.cumsum(counts_b) - counts_b, counts_a)
    ends = np.cumsum(partners)
    start = 0
    while start < len(partners):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + CHUNK_PAIRS, side="right")))
        many = partners[start:stop]
        a = np.repeat(np.arange(start, stop), many)
        within = np.arange(len(a)) - np.repeat(np.cumsum(many) - many, many)
        yield a, first_b[a] + within
        start = stop


def intersections(a: Floats, b: Floats) -> Floats:
    """(P, 4) and (P, 4) boxes to the (P,) areas that each a shares with its b."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared: Floats = np.maximum(width, 0) * np.maximum(height, 0)
    return shared


def areas(xyxy: Floats) -> Floats:
    """(N, 4) boxes to (N,) areas."""
    size: Floats = xyxy[:, 2:] - xyxy[:, :2]
    return size[:, 0] * size[:, 1]


def overlapping(
    a: Floats, counts_a: Indices, b: Floats, counts_b: Indices, above: float
) -> tuple[Indices, Indices, Floats]:
    """The pairs of one image whose intersection over union exceeds a threshold.

    Args:
        a: (N, 4) boxes, image after image.
        counts_a: (I,) number of them in each image.
        b: (M, 4) boxes, image after image.
        counts_b: (I,) number of them in each image.
        above: IoU has to be strictly greater.

    Returns:
        (P,) indices of a, (P,) indices of b, (P,) IoU; ascending by a, then b.
    """
    area_a, area_b = areas(a), areas(b)
    found = []
    for i, j in image_pairs(counts_a, counts_b):
        shared = intersections(a[i], b[j])
        touching = shared > 0
        i, j, shared = i[touching], j[touching], shared[touching]  # noqa: PLW2901
        overlap = shared / (area_a[i] + area_b[j] - shared)
        kept = overlap > above
        found.append((i[kept], j[kept], overlap[kept]))
    return _joined(found)


def covered(a: Floats, counts_a: Indices, b: Floats, counts_b: Indices) -> Floats:
    """(N,) largest part of each a, 0 to 1, that lies within a single b of its image."""
    largest = np.zeros(len(a))
    area_a = areas(a)
    for i, j in image_pairs(counts_a, counts_b):
        shared = intersections(a[i], b[j])
        touching = shared > 0
        np.maximum.at(largest, i[touching], shared[touching] / area_a[i[touching]])
    return largest


def _joined(
    found: list[tuple[Indices, Indices, Floats]],
) -> tuple[Indices, Indices, Floats]:
    if not found:
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0)
    a, b, overlap = zip(*found, strict=True)
    return np.concatenate(a), np.concatenate(b), np.concatenate(overlap)
