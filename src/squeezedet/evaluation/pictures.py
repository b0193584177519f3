"""Crops around single cases, as data that a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from squeezedet.drawing import draw_boxes
from squeezedet.evaluation.errors import Case
from squeezedet.media.images import read_image

SIDE_PX = 260
JPEG_QUALITY = 80
DETECTED, LABELLED = 0, 1  # of ``squeezedet.drawing.COLOURS``: green, orange


def crop(case: Case, image: Path) -> str:
    """The surroundings of a case as a JPEG in a data URL.

    The detection is drawn in green, the labelled box (beside it, or missed) in orange; the
    crop holds both with as much around them again.
    """
    from PIL import Image

    frame = read_image(image)
    boxes = [case.xyxy, *([case.truth_xyxy] if case.truth_xyxy else [])]
    picture = Image.fromarray(frame.pixels)
    window = _window(boxes, picture.size)
    part = picture.crop(window)
    scale = SIDE_PX / max(part.size)
    part = part.resize((max(round(part.width * scale), 1), max(round(part.height * scale), 1)))
    placed = (np.array(boxes) - np.array([*window[:2], *window[:2]])) * scale
    colours = np.arange(len(boxes)) + (LABELLED if case.kind == "missed" else DETECTED)
    drawn = draw_boxes(part, placed, [""] * len(boxes), colours)
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _window(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square around the boxes, twice their size, moved into the picture where it fits."""
    corners = np.array(boxes)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    side = max(2 * float((high - low).max()), 64.0)
    x, y = (
        min(max(centre - side / 2, 0), max(limit - side, 0))
        for centre, limit in zip((low + high) / 2, size, strict=True)
    )
    return (round(x), round(y), round(min(x + side, size[0])), round(min(y + side, size[1])))
