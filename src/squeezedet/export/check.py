"""Whether an exported file answers as the model that it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.export.graph import has_nms
from squeezedet.runtime import parity
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines.choose import open_engine
from squeezedet.runtime.parity import Difference
from squeezedet.runtime.preprocess import STRIDE, resize

MAX_PICTURES = 8
"""Of those given, so many are compared."""


def check(original: Bundle, exported: Bundle, pictures: Sequence[Path] = ()) -> str:
    """Run both on the package's picture and on others, and compare boxes and scores.

    Args:
        original: the model before the export.
        exported: read back from what was written.
        pictures: images to compare on, besides the package's.

    Returns:
        One sentence with the largest differences.

    Raises:
        DataError: a picture cannot be read.
        ModelError: the difference is above the tolerance.
    """
    pixels = _inputs(exported, pictures)
    before, after = open_engine(original), open_engine(exported)
    total = Difference()
    for image in pixels:
        found = before.run(image), after.run(image)
        total += parity.compare(*found, original.card.selection, chosen=has_nms(exported))
    rounded = parity.is_int8(exported) or parity.is_int8(original)
    tolerance = parity.INT8 if rounded else parity.FLOAT
    report = (
        f"parity on {len(pixels)} input{'s' if len(pixels) > 1 else ''} ({after.name}): {total}"
    )
    if not total.within(tolerance):
        raise ModelError(
            f"the exported model differs: {report}; allowed are {tolerance}; nothing was written"
        )
    return report


def _inputs(model: Bundle, pictures: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """The pictures in the model's own sizes, and one in half of it where it takes any size."""
    first, *rest = parity.sample_pixels(model, tuple(pictures[:MAX_PICTURES]))
    if model.card.input.fixed:
        return [first, *rest]
    height, width = (max(STRIDE, side // 2 // STRIDE * STRIDE) for side in first.shape[:2])
    return [first, resize(first, (width, height)), *rest]
