"""Rectangles with labels on a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

# Okabe and Ito's colors, told apart with every kind of color vision.
COLORS: tuple[tuple[int, int, int], ...] = (
    (0, 158, 115),
    (230, 159, 0),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
    (204, 121, 167),
)


PICTURE_FORMATS: Mapping[str, str] = MappingProxyType(
    {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
)
"""Suffixes of pictures that are written, and Pillow's names of the formats."""
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


Marking = tuple[Sequence[tuple[float, float]], str, int]
"""Corners in pixels (two are a line, more a polygon), a label, and a number that chooses the color."""


def draw_boxes(
    image: Image | NDArray[np.uint8],
    xyxy: NDArray[np.floating],
    labels: Sequence[str],
    class_id: NDArray[np.integer],
    markings: Sequence[Marking] = (),
) -> Image:
    """A copy of the picture with boxes.

    Args:
        image: PIL image or (H, W, 3) uint8 RGB array.
        xyxy: (N, 4) boxes in pixels of the image.
        labels: N texts, by descending importance: each is written above its box or, where a
            better one stands, inside it or below; one without a free place is left out.
        class_id: (N,) chooses the color.
        markings: lines and polygons under the boxes; no box's label covers theirs.
    """
    from PIL import Image as PillowImage
    from PIL import ImageDraw as PillowDraw

    # Either is a copy: Pillow stores a pixel in four bytes, an array in three.
    picture = PillowImage.fromarray(image) if isinstance(image, np.ndarray) else image.convert("RGB")
    pen = PillowDraw.Draw(picture)
    line_px = max(2, round(max(picture.size) / 500))
    texts: list[tuple[str, Sequence[float], tuple[int, int, int]]] = []
    for points, label, number in markings:
        color = COLORS[number % len(COLORS)]
        pen.line([*points, points[0]], fill=color, width=line_px + 1, joint="curve")
        x, y = min(points, key=lambda point: (point[1], point[0]))
        texts.append((label, (x, y, x, y), color))
    colors = [COLORS[int(index) % len(COLORS)] for index in class_id]
    corners = [tuple(float(v) for v in box) for box in xyxy]
    for (x1, y1, x2, y2), color in reversed(list(zip(corners, colors, strict=True))):
        pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color, width=line_px)
    texts += zip(labels, corners, colors, strict=True)
    font = _font(max(10, round(max(picture.size) / 80)))
    written: list[Place] = []
    for label, box, color in texts:
        if label:
            left, top, right, bottom = pen.textbbox((0, 0), label, font=font)
            place = _free_place((right - left + 4, bottom - top + 4), box, picture.size, written)
            if place is not None:
                written.append(place)
                pen.rectangle(place, fill=color)
                pen.text((place[0] + 2 - left, place[1] + 2 - top), label, _ink(color), font=font)
    return picture


def _ink(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on the color."""
    red, green, blue = ((part / 255) ** 2.2 for part in color)
    return (0, 0, 0) if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else (255, 255, 255)


Place = tuple[float, float, float, float]


def _free_place(
    size: tuple[float, float], box: Sequence[float], picture: tuple[int, int], taken: list[Place]
) -> Place | None:
    """Where a label covers no label of a better box: above its box, inside, or below; or None."""
    width, height = size
    x1, y1, x2, y2 = box
    above, inside, below = y1 - height, y1, y2
    rows = ([above] if above >= 0 else []) + [max(inside, 0), below, y2 - height]
    for y in rows:
        for x in (x1, x2 - width):
            left = min(max(x, 0), max(picture[0] - width, 0))
            top = min(y, picture[1] - height)
            place = (left, top, left + width, top + height)
            if top >= 0 and not any(_overlap(place, other) for other in taken):
                return place
    # In a picture lower than a label there is no better place.
    return None if taken else (0, 0, width, height)


def _overlap(a: Place, b: Place) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@lru_cache(maxsize=8)
def _font(size_px: int) -> FreeTypeFont | ImageFont:
    """Pillow's own font; loading it takes longer than drawing a picture's labels."""
    from PIL import ImageFont

    return ImageFont.load_default(size=size_px)
