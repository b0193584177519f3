"""Examples: the training images with what is learnt of them, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.sample import ClassMap, Sample
from squeezedet.errors import DataError
from squeezedet.media.images import read_image
from squeezedet.training.augment import Example
from squeezedet.training.paste import Donor, donors

CACHE_BYTES = 3_000_000_000


class Examples:
    """The training images with their boxes; decoded images are kept while they fit in memory."""

    def __init__(self, samples: Sequence[Sample], class_map: ClassMap) -> None:
        if not samples:
            raise DataError("the training split has no images")
        self.samples = samples
        self.class_map = class_map
        self._cache: dict[int, NDArray[np.uint8]] = {}

    def preload(self) -> None:
        """Decode images until the cache is full, before worker processes share it."""
        held = 0
        for i in range(len(self.samples)):
            pixels = self._decode(i)
            held += pixels.nbytes
            if held > CACHE_BYTES:
                break
            self._cache[i] = pixels

    def __getitem__(self, index: int) -> Example:
        objects = self.samples[index].objects
        class_id, region = self.class_map.targets(objects)
        learn = class_id >= 0
        pixels = self._cache.get(index)
        if pixels is None:
            pixels = self._decode(index)
        return Example(pixels, objects.xyxy[learn], class_id[learn], objects.xyxy[region])

    def _decode(self, index: int) -> NDArray[np.uint8]:
        return read_image(self.samples[index].image).pixels

    def weights(self, balance: float) -> NDArray[np.float64]:
        """(N,) how often each image is drawn: 1, more where it shows a rare class.

        A class in a share f of the images has the factor max(1, sqrt(balance / f)); an
        image takes the largest factor of its classes (LVIS, arXiv 1908.03195, appendix B).
        """
        shows = self._shows()
        share = np.maximum(shows.mean(axis=0), 1e-9)
        factor = np.maximum(1, np.sqrt(balance / share))
        weights: NDArray[np.float64] = np.maximum(1, (shows * factor).max(axis=1))
        return weights

    def donors(self, balance: float) -> tuple[Donor, ...]:
        """The objects to paste: those of classes that fewer than ``balance`` of the images show."""
        rare = np.flatnonzero(self._shows().mean(axis=0) < balance)
        boxes, class_ids, whole = [], [], []
        for sample in self.samples:
            objects = sample.objects
            class_id, _ = self.class_map.targets(objects)
            learn = class_id >= 0
            boxes.append(objects.xyxy[learn])
            class_ids.append(class_id[learn])
            whole.append(((objects.occluded == 0) & (objects.truncated < 0.05))[learn])
        return donors(boxes, class_ids, whole, [int(c) for c in rare])

    def _shows(self) -> NDArray[np.bool_]:
        """(N, classes) which classes each image shows."""
        shows = np.zeros((len(self.samples), len(self.class_map.names)), dtype=bool)
        for row, sample in zip(shows, self.samples, strict=True):
            ids, _ = self.class_map.targets(sample.objects)
            row[ids[ids >= 0]] = True
        return shows
