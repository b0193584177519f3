"""The size of an image from its header, without decoding it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from squeezedet.media.images import FORMATS, ORIENTATION, read_image

if TYPE_CHECKING:
    from PIL.Image import Image

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright image, as ``squeezedet.media.images.read_image`` gives it.

    Raises:
        DataError: there is no image, or its header is damaged.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as picture:
            return upright_size(picture)
    except Exception:  # what is wrong, the strict reader says in a sentence
        pixels = read_image(path).pixels
        return pixels.shape[1], pixels.shape[0]


def upright_size(picture: Image) -> tuple[int, int]:
    """(width, height) of a picture once it is turned as its EXIF data say.

    A PNG that says so behind its pixels is taken as it lies: asking would decode it.
    """
    width, height = picture.size
    if picture.format == "PNG" and not {"exif", "xmp"} & picture.info.keys():
        return width, height
    orientation = 1
    with contextlib.suppress(Exception):  # damaged EXIF data say nothing
        orientation = picture.getexif().get(ORIENTATION, 1)
    return (height, width) if orientation in SIDEWAYS else (width, height)
