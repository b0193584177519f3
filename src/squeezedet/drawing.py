"""Rectangles with labels on a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

# Okabe and Ito's colours, told apart with every kind of colour vision.
COLORS: tuple[tuple[int, int, int], ...] = (
    (0, 158, 115),
    (230, 159, 0),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
    (204, 121, 167),
)


JPEG_QUALITY = 92


def encode_picture(picture: Image, kind: str = "JPEG", quality: int = JPEG_QUALITY) -> bytes:
    """The picture as the content of a file.

    Write it with ``files.write_atomic``: Pillow itself does not notice a full disk.

    Args:
        picture: a PIL image.
        kind: JPEG, PNG, WEBP or another name of Pillow's.
        quality: 0 to 100, of formats that have one.
    """
    content = io.BytesIO()
    picture.save(content, kind, quality=quality)
    return content.getvalue()


def draw_boxes(
    image: Image | NDArray[np.uint8],
    xyxy: NDArray[np.floating],
    labels: Sequence[str],
    class_id: NDArray[np.integer],
) -> Image:
    """A copy of the picture with boxes.

    Args:
        image: PIL image or (H, W, 3) uint8 RGB array.
        xyxy: (N, 4) boxes in pixels of the image.
        labels: N texts, written above each box.
        class_id: (N,) chooses the colour.
    """
    from PIL import Image as PillowImage
    from PIL import ImageDraw as PillowDraw

    # Either is a copy: Pillow stores a pixel in four bytes, an array in three.
    if isinstance(image, np.ndarray):
        picture = PillowImage.fromarray(image)
    else:
        picture = image.convert("RGB")
    pen = PillowDraw.Draw(picture)
    line_px = max(2, round(max(picture.size) / 500))
    for box, label, index in reversed(list(zip(xyxy, labels, class_id, strict=True))):
        colour = COLORS[int(index) % len(COLORS)]
        x1, y1, x2, y2 = (float(v) for v in box)
        pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=line_px)
        if label:
            _write_label(picture, pen, label, (x1, y1), colour)
    return picture


def _write_label(
    picture: Image,
    pen: ImageDraw,
    label: str,
    corner: tuple[float, float],
    colour: tuple[int, int, int],
) -> None:
    """The label above the upper left corner of its box, or below it at the picture's edge."""
    font = _font(max(10, round(max(picture.size) / 80)))
    left, top, right, bottom = pen.textbbox((0, 0), label, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = min(max(corner[0], 0), max(picture.width - width, 0))
    y = corner[1] - height if corner[1] >= height else min(corner[1], picture.height - height)
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 2 - left, y + 2 - top), label, fill=(0, 0, 0), font=font)


@lru_cache(maxsize=8)
def _font(size_px: int) -> FreeTypeFont | ImageFont:
    """Pillow's own font; loading it takes longer than drawing a picture's labels."""
    from PIL import ImageFont

    return ImageFont.load_default(size=size_px)
