"""Anchor shapes for a data set: k-means in width and height, and how well a set fits.

A shape is the (width, height) of a box in pixels of the network's input, so an image
is scaled first, by the rule that training and detection use. Two distances:

``euclidean``  the SqueezeDet paper's method: squared Euclidean distance of (width,
               height), from Ashraf et al., "Shallow Networks for High-accuracy Road
               Object-detection", arXiv 1606.01561, section 7.2. Large boxes weigh most.
``iou``        1 - IoU of two boxes with one center, from Redmon and Farhadi, "YOLO9000",
               arXiv 1612.08242, section 2: small boxes count as much as large ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.sample import ClassMap, Sample, image_size
from squeezedet.errors import DataError
from squeezedet.preprocess import InputRule

Shapes = NDArray[np.float64]
AnchorSet = tuple[tuple[int, int], ...]
Method = Literal["euclidean", "iou"]

# The two sets of the released code, (width, height) in pixels of a 1248x384 input.
ANCHORS_A: AnchorSet = (
    (36, 37), (366, 174), (115, 59), (162, 87), (38, 90), (258, 173), (224, 108), (78, 170), (72, 43),
)  # fmt: skip
# Clustered without small objects, which KITTI does not count.
ANCHORS_B: AnchorSet = (
    (94, 49), (225, 161), (170, 91), (390, 181), (41, 32), (128, 64), (298, 164), (232, 99), (65, 42),
)  # fmt: skip
RESTARTS = 10
MAX_ROUNDS = 300
SETTLED = 1e-5
"""A round that saves a smaller share of the cost is the last."""
GOOD_IOU = 0.5
BLOCK = 100_000  # shapes compared at a time: what bounds the memory


@dataclass(frozen=True, slots=True)
class ClassFit:
    """How well anchors fit the objects of one class.

    An object's best IoU is that with the most similar anchor, both with one center.

    Attributes:
        objects: how many were compared.
        mean_iou: mean of the best IoUs.
        good_share: share of the objects with a best IoU above 0.5.
    """

    objects: int
    mean_iou: float
    good_share: float


@dataclass(frozen=True, slots=True)
class Fit(ClassFit):
    """How well a set of anchors, each (width, height), fits all objects, and those of each class that has some."""

    name: str
    anchors: AnchorSet
    classes: dict[str, ClassFit]


def input_shapes(samples: Sequence[Sample], class_map: ClassMap, rule: InputRule) -> tuple[Shapes, NDArray[np.int64]]:
    """The objects that a detector learns, at the size at which it sees them.

    Regions, types of no class, ignored objects and boxes without area are left out.

    Returns:
        (N, 2) widths and heights in input pixels, and (N,) class ids.

    Raises:
        DataError: the header of an image cannot be read.
    """
    shapes, classes = [np.empty((0, 2))], [np.empty(0, dtype=np.int64)]
    for sample in samples:
        class_id = class_map.class_ids(sample.objects.types)
        size = sample.objects.xyxy[:, 2:].astype(np.float64) - sample.objects.xyxy[:, :2]
        learned = (class_id >= 0) & (size > 0).all(axis=1) & ~sample.objects.ignored
        if learned.any():
            image = image_size(sample.image)
            shapes.append(size[learned] * np.divide(rule.content(*image), image))
            classes.append(class_id[learned])
    return np.concatenate(shapes), np.concatenate(classes)


def anchors_for(
    samples: Sequence[Sample], class_map: ClassMap, rule: InputRule, k: int = 9, method: Method = "iou", seed: int = 0
) -> AnchorSet:
    """Anchors for the objects of the samples: (width, height) in input pixels, by area.

    Raises:
        DataError: fewer than k different shapes, or an image cannot be read.
    """
    return whole_pixels(cluster(input_shapes(samples, class_map, rule)[0], k, method, seed))


def whole_pixels(shapes: Shapes) -> AnchorSet:
    """(K, 2) shapes as integers of at least 1, sorted by area, then width."""
    rounded = np.maximum(np.rint(shapes), 1).astype(int).tolist()
    return tuple(sorted(((w, h) for w, h in rounded), key=lambda s: (s[0] * s[1], s[0])))


# --------------------------------------------------------------------- k-means


def cluster(shapes: Shapes, k: int, method: Method = "iou", seed: int = 0) -> Shapes:
    """(N, 2) shapes to the (k, 2) centers of least total cost; the same for the same seed.

    Lloyd's rounds from a k-means++ start, ten starts, the best of all is taken. A center
    is the mean of its shapes with both distances, as in YOLOv2; for 1 - IoU the mean is
    not the minimiser, so a round can cost more than the one before, and the cheapest is kept.

    Raises:
        DataError: there are fewer than k different shapes.
    """
    different = len(np.unique(shapes, axis=0))
    if different < k:
        raise DataError(
            f"{k} anchors need as many boxes of different shape, the data has {different}; ask for fewer anchors"
        )
    random = np.random.default_rng(seed)
    tries = [_lloyd(shapes, _spread(shapes, k, method, random), method) for _ in range(RESTARTS)]
    return min(tries, key=lambda found: found[0])[1]


def _costs(shapes: Shapes, centers: Shapes, method: Method) -> Shapes:
    """(N, 2) and (K, 2) shapes to their (N, K) distances."""
    if method == "iou":
        distance: Shapes = np.maximum(1 - shape_iou(shapes, centers), 0)  # not -1e-16
    else:
        w, h = shapes.T[..., None]
        distance = np.square(w - centers[:, 0]) + np.square(h - centers[:, 1])
    return distance


def _spread(shapes: Shapes, k: int, method: Method, random: np.random.Generator) -> Shapes:
    """k-means++: each center is a shape, drawn in proportion to its cost so far."""
    centers: Shapes = shapes[random.integers(len(shapes))][None]
    nearest = _costs(shapes, centers, method)[:, 0]
    while len(centers) < k:
        # A shape that is a center costs nothing but for rounding, and is never drawn again;
        # when no other costs anything, rounding hides that they differ.
        other = (shapes[:, None] != centers[None]).any(-1).all(-1)
        weight = np.where(other, nearest, 0)
        if not weight.any():
            weight = other.astype(np.float64)
        chosen = shapes[random.choice(len(shapes), p=weight / weight.sum())][None]
        centers = np.concatenate([centers, chosen])
        nearest = np.minimum(nearest, _costs(shapes, chosen, method)[:, 0])
    return centers


def _lloyd(shapes: Shapes, centers: Shapes, method: Method) -> tuple[float, Shapes]:
    """The cheapest of the rounds from these centers: its total cost, and its centers."""
    best = (np.inf, centers)
    for _ in range(MAX_ROUNDS):
        costs = _costs(shapes, centers, method)
        total, least = float(costs.min(axis=1).sum()), best[0]
        if total < least:
            best = (total, centers)
        if total >= least * (1 - SETTLED):
            break
        centers = _means(shapes, costs.argmin(axis=1), centers)
    return best


def _means(shapes: Shapes, owner: NDArray[np.intp], centers: Shapes) -> Shapes:
    """The mean shape of each cluster; a cluster without shapes keeps its center."""
    count = np.bincount(owner, minlength=len(centers))
    sums = [np.bincount(owner, weights=side, minlength=len(centers)) for side in shapes.T]
    mean = np.stack(sums, axis=1) / np.maximum(count, 1)[:, None]
    return np.where(count[:, None] > 0, mean, centers)


# ------------------------------------------------------------------------- fit


def shape_iou(shapes: Shapes, anchors: Shapes) -> Shapes:
    """(N, 2) and (K, 2) widths and heights to the (N, K) IoUs of boxes with one center."""
    w, h = shapes.T[..., None]
    shared = np.minimum(w, anchors[:, 0]) * np.minimum(h, anchors[:, 1])
    overlap: Shapes = shared / (w * h + anchors[:, 0] * anchors[:, 1] - shared)
    return overlap


def measure(name: str, anchors: AnchorSet, shapes: Shapes, class_id: NDArray[np.int64], names: Sequence[str]) -> Fit:
    """How well a set of that name fits the (N, 2) shapes and (N,) class ids of ``input_shapes``.

    Raises:
        DataError: there is no object to compare with.
    """
    if not len(shapes):
        raise DataError("no object of any class: there is nothing to fit anchors to")
    table = np.asarray(anchors, dtype=np.float64)
    best = np.concatenate(
        [shape_iou(shapes[start : start + BLOCK], table).max(axis=1) for start in range(0, len(shapes), BLOCK)]
    )

    def figures(some: Shapes) -> tuple[int, float, float]:
        return len(some), float(some.mean()), float((some > GOOD_IOU).mean())

    classes = {names[c]: ClassFit(*figures(best[class_id == c])) for c in np.unique(class_id).tolist()}
    return Fit(*figures(best), name, whole_pixels(table), classes)
