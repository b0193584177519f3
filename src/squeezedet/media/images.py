"""Read one image file, whatever it holds, as RGB pixels."""

from __future__ import annotations

import contextlib
import io
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import DataError
from squeezedet.files import open_regular

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 80_000_000
"""Default limit: 240 MB as RGB, and below the size at which Pillow itself starts to warn."""
MAX_BYTES = 50_000_000
"""Limit for what has no size of its own: a download, a pipe, standard input."""
ORIENTATION = 0x0112  # EXIF tag
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@dataclass(frozen=True, slots=True)
class FrameTime:
    """The place of a frame in its video.

    Attributes:
        time_s: seconds since the first frame.
        number: how many frames came before it.
        dropped: how many of these were passed over, because newer ones had come.
        damaged: how many so far were damaged.
    """

    time_s: float
    number: int
    dropped: int = 0
    damaged: int = 0

    @property
    def first(self) -> bool:
        """No other frame of this video was handed over before."""
        return self.number == self.dropped


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image on its way to a detector.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        name: where it came from: a path, a URL, "-" for standard input, "" for an array.
        load_ms: milliseconds spent reading and decoding.
        notes: what a user should know, one sentence each ("first of 12 frames").
        moment: when it is, for a frame of a video.
    """

    pixels: NDArray[np.uint8]
    name: str = ""
    load_ms: float = 0.0
    notes: tuple[str, ...] = ()
    moment: FrameTime | None = None


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
        frame = _read_bytes(source, name, max_pixels)
    else:
        frame = _read_path(source, name, max_pixels)
    return Frame(frame.pixels, name, (time.perf_counter() - start) * 1000, frame.notes)


def frame_of(picture: Image.Image, name: str = "") -> Frame:
    """An open picture as upright RGB: the pixels that ``read_image`` gives for its file.

    Args:
        picture: any PIL image; it stays as it is.
        name: name to report.

    Raises:
        DataError: it has no pixels, or its file turns out to be damaged.
    """
    called = name or "image"
    try:
        picture.load()
        pixels = np.asarray(_to_rgb(_upright(picture), called))
    except DataError:
        raise
    except Exception as error:
        raise _damaged(called, error) from error
    if not pixels.size:
        raise DataError(f"{called}: has no pixels")
    return Frame(pixels, name)


def read_limited(stream: BinaryIO, name: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Everything a stream holds, at most ``max_bytes``.

    Raises:
        DataError: the stream holds more.
    """
    content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DataError(f"{name}: {too_many_bytes(max_bytes)}")
    return content


def too_many_bytes(max_bytes: int) -> str:
    """The sentence for a stream that does not end in time."""
    return f"more than {max_bytes / 1e6:g} MB; save it to a file first and detect in that file"


def _read_path(path: Path, name: str, max_pixels: int) -> Frame:
    with open_regular(path, what="image") as file:
        if not file.seekable():  # the user's own pipe: it cannot be searched back and forth
            return _read_bytes(read_limited(file, name), name, max_pixels)
        if not os.fstat(file.fileno()).st_size:
            raise DataError(f"{name}: the file is empty")
        return _decode(file, name, max_pixels)


def _read_bytes(content: bytes, name: str, max_pixels: int) -> Frame:
    if not content:
        raise DataError(f"{name}: the file is empty")
    return _decode(io.BytesIO(content), name, max_pixels)


def _decode(file: BinaryIO, name: str, max_pixels: int) -> Frame:
    from PIL import Image, UnidentifiedImageError

    _lift_pillow_limit(max_pixels)
    try:
        with Image.open(file, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise DataError(
                    f"{name}: {width}x{height} pixels are more than the limit of {max_pixels}; "
                    "raise it with --max-pixels"
                )
            notes = _notes(picture, name)
            pixels = frame_of(picture, name).pixels
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image that can be read ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{name}: has more pixels than the limit of {max_pixels}; raise it with --max-pixels"
        ) from error
    except Exception as error:
        raise _damaged(name, error) from error
    return Frame(pixels, name, notes=notes)


def _damaged(name: str, error: Exception) -> DataError:
    """What is said of any other error of Pillow.

    The bytes come from anywhere, and what Pillow's decoders raise on damaged ones is open:
    OSError, ValueError, SyntaxError, struct.error, KeyError have all been seen.
    """
    return DataError(f"{name}: the image is damaged ({str(error) or type(error).__name__})")


def _lift_pillow_limit(max_pixels: int) -> None:
    """Pillow's own limit belongs to the whole process: raise it when asked for more, no further."""
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels


def _notes(picture: Image.Image, name: str) -> tuple[str, ...]:
    # A JPEG with several pictures (MPO) holds previews or the other eye: not worth a word.
    parts = {"GIF": "frames", "WEBP": "frames", "PNG": "frames", "TIFF": "pages"}
    unit = parts.get(picture.format or "")
    count = getattr(picture, "n_frames", 1) if unit else 1
    if count <= 1:
        return ()
    what = "an animation" if unit == "frames" else "a document"
    return (f"{name}: {what}, the first of {count} {unit} is used",)


def _upright(picture: Image.Image) -> Image.Image:
    """The loaded picture, or a copy turned as its EXIF data say; damaged ones say nothing."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    orientation = 1
    with contextlib.suppress(Exception):
        orientation = picture.getexif().get(ORIENTATION, 1)
    return picture.transpose(turns[orientation]) if orientation in turns else picture


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """Any mode to RGB: 16-bit grey by its upper byte, transparency on white."""
    from PIL import Image

    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode == "F" or (picture.mode == "I" and picture.format == "TIFF"):
        raise DataError(f"{name}: 32-bit pixels have no known range; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):
        upper = np.clip(np.asarray(picture), 0, 65535).astype(np.uint16) >> 8
        return Image.fromarray(upper.astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        white = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, opaque).convert("RGB")
    return picture.convert("RGB")
