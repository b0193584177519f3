"""Paste labelled objects of rare classes into other scenes (after arXiv 1708.01642).

Boxes have no masks, so an object comes as its box with a soft rim. Where it lands, it
keeps the perspective of its own scene: it is scaled about the horizon, so that what is
smaller stands higher. As many patches of mere background are pasted in the same way: the
network must not learn that a soft rim means an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import area, intersection, iou
from squeezedet.training.augment import Example

HORIZON = 0.48  # of the image's height, near enough for a camera that looks along the road
RIM = 0.12  # of the box's sides, on each side
MIN_HEIGHT, MIN_WIDTH = 20, 7  # pixels that a donor has, and that what is pasted has
MAX_COVERED = 0.15  # share of a labelled object that may vanish behind what is pasted
MAX_SHARE = 0.9  # of the image's sides
TRIES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Donor:
    """An object to paste: its image, its box in it, its class."""

    index: int
    xyxy: NDArray[np.float32]
    class_id: int


def donors(
    boxes: Sequence[NDArray[np.float32]],
    class_ids: Sequence[NDArray[np.int64]],
    whole: Sequence[NDArray[np.bool_]],
    rare: Sequence[int],
) -> tuple[Donor, ...]:
    """The objects of rare classes that can be cut out: whole, large enough, nothing before them.

    Args:
        boxes: for each image (n, 4) xyxy of its objects.
        class_ids: for each image (n,).
        whole: for each image (n,) True where the label says neither cut off nor covered.
        rare: the classes to paste.
    """
    found = []
    for index, (xyxy, class_id, seen) in enumerate(zip(boxes, class_ids, whole, strict=True)):
        if not np.isin(class_id, rare).any():
            continue
        sides = xyxy[:, 2:] - xyxy[:, :2]
        overlap = iou(xyxy, xyxy)
        np.fill_diagonal(overlap, 0)
        good = seen & np.isin(class_id, rare) & (overlap.max(axis=1, initial=0) < 0.1)
        good &= (sides[:, 0] >= MIN_WIDTH) & (sides[:, 1] >= MIN_HEIGHT)
        found += [Donor(index, xyxy[i], int(class_id[i])) for i in np.flatnonzero(good)]
    return tuple(found)


def paste(
    example: Example, donor: Donor, source: NDArray[np.uint8], rng: np.random.Generator
) -> Example:
    """The example with one object more, or as it was where none of a few places will do.

    Args:
        example: the scene.
        donor: the object.
        source: (H, W, 3) the donor's image.
        rng: source of randomness.
    """
    place = _place(example, donor.xyxy, source.shape[:2], rng)
    if place is None:
        return example
    cut = donor.xyxy
    if rng.random() < 0.5:
        source = np.ascontiguousarray(source[:, ::-1])
        cut = np.array([source.shape[1], 0] * 2) + cut[[2, 1, 0, 3]] * np.array([-1, 1] * 2)
    pixels = _blend(example.pixels, source, cut, place)
    return replace(
        example,
        pixels=pixels,
        xyxy=np.concatenate([example.xyxy, place[None]]),
        class_id=np.append(example.class_id, np.int64(donor.class_id)),
    )


def paste_decoy(
    example: Example, like: Donor, source: Example, rng: np.random.Generator
) -> Example:
    """The example with a patch of background of another scene, as large as an object.

    Args:
        example: the scene.
        like: an object whose size the patch has.
        source: the scene that it comes from.
        rng: source of randomness.
    """
    height, width = source.pixels.shape[:2]
    w, h = np.minimum(like.xyxy[2:] - like.xyxy[:2], (width - 1, height - 1))
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    cut = np.array([x, y, x + w, y + h], np.float32)
    taken = np.concatenate([source.xyxy, source.regions])
    if len(taken) and iou(cut[None], taken).max() > 0:
        return example
    place = _place(example, cut, (height, width), rng)
    if place is None:
        return example
    return replace(example, pixels=_blend(example.pixels, source.pixels, cut, place))


def _place(
    example: Example, xyxy: NDArray[np.float32], source: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float32] | None:
    """A box in the scene for what is ``xyxy`` in an image of (height, width), or None."""
    height, width = example.pixels.shape[:2]
    horizon = HORIZON * height
    to_scene = height / source[0]
    w, h = (xyxy[2:] - xyxy[:2]) * to_scene
    foot = xyxy[3] * to_scene
    for _ in range(TRIES):
        zoom = float(np.exp(rng.uniform(np.log(0.5), np.log(1.6))))
        bottom = horizon + (foot - horizon) * zoom if foot > horizon else foot
        bottom = min(float(bottom), height - 1.0)
        box_w, box_h = float(w * zoom), float(h * zoom)
        small = box_h < MIN_HEIGHT or box_w < MIN_WIDTH
        if small or box_h > min(bottom, MAX_SHARE * height) or box_w > MAX_SHARE * width:
            continue
        left = rng.uniform(0, width - box_w)
        place = np.array([left, bottom - box_h, left + box_w, bottom], np.float32)
        if _free(example, place):
            return place
    return None


def _free(example: Example, place: NDArray[np.float32]) -> bool:
    """Whether a box hides next to nothing of the labelled objects, and stands in no region."""
    taken = np.concatenate([example.xyxy, example.regions])
    if not len(taken):
        return True
    shared = intersection(taken, place[None])[:, 0]
    smaller = np.minimum(area(taken), area(place[None]))
    return bool((shared <= MAX_COVERED * np.maximum(smaller, 1e-6)).all())


def _blend(
    scene: NDArray[np.uint8],
    source: NDArray[np.uint8],
    cut: NDArray[np.float32],
    place: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """A copy of the scene with ``cut`` of the source at ``place``, with a soft rim around it."""
    target = np.rint(_with_rim(place)).astype(int)
    width, height = (target[2:] - target[:2]).tolist()
    patch = _cut_out(source, _with_rim(cut), (width, height))
    alpha = np.minimum.outer(_ramp(height), _ramp(width))[..., None]
    x1, y1 = np.maximum(target[:2], 0)
    x2, y2 = np.minimum(target[2:], scene.shape[1::-1])
    there = scene[y1:y2, x1:x2].astype(np.float32)
    seen = np.s_[y1 - target[1] : y2 - target[1], x1 - target[0] : x2 - target[0]]
    patch, alpha = patch[seen], alpha[seen]
    rim = alpha < 0.5
    weight = rim / max(float(rim.sum()), 1.0)  # half of the difference in light goes
    patch = patch + 0.5 * ((there - patch) * weight).sum(axis=(0, 1))
    mixed = there + alpha * (patch - there)
    pixels = scene.copy()
    pixels[y1:y2, x1:x2] = np.rint(mixed.clip(0, 255)).astype(np.uint8)
    return pixels


def _with_rim(box: NDArray[np.float32]) -> NDArray[np.float32]:
    rim = RIM * (box[2:] - box[:2])
    return np.concatenate([box[:2] - rim, box[2:] + rim])


def _cut_out(
    source: NDArray[np.uint8], window: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.float32]:
    """A window of an image at (width, height); outside the image its edge is repeated."""
    from PIL import Image

    low, high = np.floor(window[:2]).astype(int), np.ceil(window[2:]).astype(int)
    columns = np.clip(np.arange(low[0], high[0]), 0, source.shape[1] - 1)
    rows = np.clip(np.arange(low[1], high[1]), 0, source.shape[0] - 1)
    part = Image.fromarray(source[rows[:, None], columns])
    box = tuple((window - np.tile(low, 2)).tolist())
    return np.asarray(part.resize(size, Image.Resampling.BILINEAR, box=box), np.float32)


def _ramp(n: int) -> NDArray[np.float32]:
    """(n,) from 0 at both ends to 1 over the rim."""
    rim = max(1.0, n * RIM / (1 + 2 * RIM))
    distance = np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5
    return np.clip(distance / rim, 0, 1).astype(np.float32)
