"""Read one image file, whatever it holds, as RGB pixels."""

from __future__ import annotations

import io
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image on its way to a detector.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        name: where it came from: a path, a URL, "-" for standard input, "" for an array.
        load_ms: milliseconds spent reading and decoding.
        notes: what a user should know, one sentence each ("first of 12 frames").
    """

    pixels: NDArray[np.uint8]
    name: str = ""
    load_ms: float = 0.0
    notes: tuple[str, ...] = ()


def read_image(source: Path | bytes, name: str = "", max_pixels: int = MAX_PIXELS) -> Frame:
    """Decode an image to upright RGB.

    EXIF rotation is applied; palette, grey, CMYK and 16-bit images are converted;
    transparency is laid on white; of an animation the first frame is taken.

    Args:
        source: path of a file, or the bytes of one.
        name: name to report; the path by default.
        max_pixels: an image of more pixels is refused before it is decoded.

    Raises:
        DataError: the file is missing, empty, no image, damaged or too large.
    """
    start = time.perf_counter()
    name = name or (str(source) if isinstance(source, Path) else "image")
    if isinstance(source, bytes):
        if not source:
            raise DataError(f"{name}: the file is empty")
        pixels, notes = _decode(io.BytesIO(source), name, max_pixels)
    else:
        try:
            if not source.stat().st_size and source.is_file():
                raise DataError(f"{name}: the file is empty")
            with source.open("rb") as file:
                pixels, notes = _decode(file, name, max_pixels)
        except OSError as error:
            raise DataError(f"{name}: {_reason(error)}") from error
    return Frame(pixels, name, (time.perf_counter() - start) * 1000, notes)


def _reason(error: OSError) -> str:
    return {
        "FileNotFoundError": "no such file",
        "IsADirectoryError": "is a folder, not an image",
        "PermissionError": "permission denied",
    }.get(type(error).__name__, error.strerror or str(error))


def _decode(
    file: BinaryIO, name: str, max_pixels: int
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    notes = []
    try:
        with warnings.catch_warnings():
            # Our own limit below replaces Pillow's, which only warns.
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    raise DataError(
                        f"{name}: {width}x{height} pixels are more than the limit of {max_pixels}; "
                        "raise it with --max-pixels"
                    )
                frames = getattr(picture, "n_frames", 1)
                if frames > 1:
                    notes.append(f"{name}: an animation, the first of {frames} frames is used")
                picture.load()
                pixels = np.asarray(_to_rgb(ImageOps.exif_transpose(picture)))
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image that can be read ({', '.join(FORMATS)})") from error
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: too many pixels; raise the limit with --max-pixels") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError) as error:
        raise DataError(f"{name}: the image is damaged: {error}") from error
    return pixels, tuple(notes)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode to RGB: 16-bit grey by its upper byte, transparency on white."""
    from PIL import Image

    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I;16") or picture.mode == "I":
        upper = np.asarray(picture).astype(np.uint32) >> 8
        return Image.fromarray(np.minimum(upper, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        white = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, opaque).convert("RGB")
    return picture.convert("RGB")
