"""The size of an image from its header, without decoding it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from squeezedet.errors import DataError
from squeezedet.media.images import FORMATS, ORIENTATION, read_image

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright image, as ``squeezedet.media.images.read_image`` gives it.

    Raises:
        DataError: there is no image, or its header is damaged.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            orientation = 1
            with contextlib.suppress(Exception):  # damaged EXIF data say nothing
                orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # what is wrong, the strict reader says in a sentence
        pixels = read_image(path).pixels
        return pixels.shape[1], pixels.shape[0]
    if not width or not height:
        raise DataError(f"{path}: has no pixels")
    return (height, width) if orientation in SIDEWAYS else (width, height)
