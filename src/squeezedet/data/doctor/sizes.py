"""Sizes: objects too small for the network's input, images of odd size or shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.doctor.finding import Finding, Level, Place, some
from squeezedet.data.doctor.survey import Survey, place
from squeezedet.data.sample import Sample

SMALL_PX = 8.0
"""Half a cell of the feature map: what is narrower or lower is hardly seen."""
MANY_SMALL = 0.1
MAX_STRETCH = 1.1
TINY_IMAGE_PX = 64


def check(survey: Survey) -> list[Finding]:
    """All findings about sizes of boxes and images."""
    return [*_small_objects(survey), *_shape(survey), *_tiny_images(survey)]


def input_boxes(survey: Survey, sample: Sample) -> NDArray[np.float64]:
    """(N, 2) width and height of each box in pixels of the input; 0 if the image is unreadable."""
    look = survey.look(sample)
    size = np.maximum(sample.objects.xyxy[:, 2:] - sample.objects.xyxy[:, :2], 0).astype(float)
    if look is None:
        return np.zeros_like(size)
    scaled: NDArray[np.float64] = size * scale(survey, look.width, look.height)
    return scaled


def scale(survey: Survey, width: int, height: int) -> NDArray[np.float64]:
    """(2,) how an image of this size is scaled to the input, across and down."""
    return np.divide(survey.rule.content(width, height), (width, height))


def _small_objects(survey: Survey) -> Iterator[Finding]:
    small: Counter[str] = Counter()
    total: Counter[str] = Counter()
    found: list[tuple[int, Place]] = []
    names = survey.class_map.names
    for split, sample in survey.samples():
        size = input_boxes(survey, sample)
        class_id = survey.class_map.class_ids(sample.objects.types)
        seen = survey.learned(sample) & (size > 0).all(axis=1)
        total.update(names[c] for c in class_id[seen].tolist())
        lost = seen & (size < SMALL_PX).any(axis=1)
        small.update(names[c] for c in class_id[lost].tolist())
        if lost.any():
            boxes = tuple(np.flatnonzero(lost).tolist())
            found.append((len(boxes), place(split, sample, boxes)))
    if not found:
        return
    number = sum(small.values())
    shares = {name: small[name] / total[name] for name in names if total[name]}
    parts = ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share)
    yield Finding(
        Level.warning if max(shares.values()) > MANY_SMALL else Level.note,
        "small",
        tuple(where for _, where in sorted(found, key=lambda pair: -pair[0])),
        number,
        f"{number:,} of {some(sum(total.values()), 'object')} narrower or lower than "
        f"{SMALL_PX:g} px at the input size ({parts}), hardly seen; a larger --size keeps them",
    )


def _shape(survey: Survey) -> Iterator[Finding]:
    """Images that the input rule stretches visibly."""
    found: list[tuple[float, Place]] = []
    for split, sample in survey.samples():
        look = survey.look(sample)
        if look is None:
            continue
        across, down = scale(survey, look.width, look.height)
        stretch = max(across / down, down / across)
        if stretch > MAX_STRETCH:
            found.append((stretch, place(split, sample)))
    if found:
        found.sort(key=lambda pair: -pair[0])
        yield Finding(
            Level.warning,
            "stretched",
            tuple(where for _, where in found),
            len(found),
            f"{some(len(found), 'image')} stretched by up to {found[0][0]:.2f} to fit the input: "
            "objects look wider or taller than they are",
        )


def _tiny_images(survey: Survey) -> Iterator[Finding]:
    found = [
        place(split, sample)
        for split, sample in survey.samples()
        for look in [survey.look(sample)]
        if look is not None and min(look.width, look.height) < TINY_IMAGE_PX
    ]
    if found:
        yield Finding(
            Level.warning,
            "tiny-image",
            tuple(found),
            len(found),
            f"{some(len(found), 'image')} with a side below {TINY_IMAGE_PX} px: a thumbnail?",
        )
