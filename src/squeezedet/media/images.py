"""Read one image, whatever file it is in, as upright RGB pixels."""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import DataError
from squeezedet.files import read_regular

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 80_000_000
"""Default limit: 240 MB as RGB, and below the size at which Pillow itself starts to warn."""
MAX_FILE_BYTES = 500_000_000
"""Limit of an image file: ``MAX_PIXELS`` of 16 bits and three colors, not compressed."""
MAX_BYTES = 50_000_000
"""Limit for what has no size of its own: a download, a pipe, standard input."""
MAX_SCANS = 64
"""A progressive JPEG has about ten; each costs the work of a whole picture."""
MAX_SCAN_PIXELS = 1_000_000_000
"""Scans times pixels: some seconds of work."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
ORIENTATION = 0x0112  # EXIF tag
STRIP_PIXELS = 4_000_000
"""So many pixels are converted at a time, so that no second copy of a large picture is needed."""
NARROW = 64
"""16-bit pixels that use fewer of the 256 steps of their upper byte are stretched."""


@dataclass(frozen=True, slots=True)
class FrameTime:
    """The place of a frame in its video."""

    time_s: float  # since the first frame; greater than that of the frame before
    number: int  # of frames before it
    dropped: int = 0  # of these, those that were passed over, because newer ones had come
    damaged: int = 0  # frames so far
    wall_time: datetime | None = None  # when a frame of a live source arrived, with the time zone
    reopened: int = 0  # how often a live source had broken off and was opened again

    @property
    def first(self) -> bool:
        """No other frame of this video was handed over before."""
        return self.number == self.dropped

    def after(self, last: FrameTime, gap_s: float) -> FrameTime:
        """The same, in a source opened again or the next of several: ``gap_s`` behind the last frame before."""
        return replace(
            self,
            time_s=last.time_s + gap_s + self.time_s,
            number=last.number + 1 + self.number,
            dropped=last.dropped + self.dropped,
            damaged=last.damaged + self.damaged,
            reopened=last.reopened + 1 + self.reopened,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image on its way to a detector."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB, upright
    name: str = ""  # where it came from: a path, an address, "-" for standard input, "" for an array
    load_ms: float = 0.0  # spent reading and decoding
    notes: tuple[str, ...] = ()  # what a user should know, one sentence each
    moment: FrameTime | None = None  # of a frame of a video


# ----------------------------------------------------------------- reading


def read_image(source: Path | bytes, name: str = "", max_pixels: int = MAX_PIXELS) -> Frame:
    """Decode an image to upright RGB.

    EXIF rotation is applied; palette, gray, CMYK and 16-bit images are converted; transparency
    is laid on white; of an animation the first frame is taken.

    Args:
        source: path of a file, or the bytes of one.
        name: name to report; the path by default.
        max_pixels: an image of more pixels is refused before it is decoded.

    Raises:
        DataError: the file is missing, empty, no image, damaged, too large, or made so that
            decoding it would take very long.
    """
    start = time.perf_counter()
    name = name or (str(source) if isinstance(source, Path) else "image")
    if isinstance(source, Path):
        source = read_regular(source, MAX_FILE_BYTES, what="image")
    if not source:
        raise DataError(f"{name}: the file is empty")
    frame = _decode(source, name, max_pixels)
    return Frame(frame.pixels, name, (time.perf_counter() - start) * 1000, frame.notes)


def frame_of(image: Image.Image | NDArray[np.uint8], name: str = "") -> Frame:
    """An open PIL image, which stays as it is, or an (H, W, 3) uint8 RGB array: as ``read_image`` of its file.

    Raises:
        DataError: it has no pixels, an array has another shape or type, or the file of the
            picture turns out to be damaged.
    """
    called = name or "image"
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise DataError(f"an array must be (H, W, 3) uint8 RGB and not empty, not {image.shape} {image.dtype}")
        return Frame(np.ascontiguousarray(image), name)
    try:
        image.load()
        pixels, notes = _to_rgb(image, called)
    except DataError:
        raise
    except Exception as error:
        raise _damaged(called, error) from error
    if not pixels.size:
        raise DataError(f"{called}: has no pixels")
    return Frame(pixels, name, notes=notes)


def _decode(content: bytes, name: str, max_pixels: int) -> Frame:
    from PIL import Image, UnidentifiedImageError

    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # it belongs to the whole process: raised when asked for more, no further
    too_large = f"more than `max_pixels`, {max_pixels}"
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise DataError(f"{name}: {width}x{height} pixels are {too_large}")
            if picture.format in ("JPEG", "MPO"):
                _limit_scans(content, width * height, name)
            notes = _notes(picture, name)
            deep = picture.mode[0] != "I" and any(";16" in str(tile) for tile in getattr(picture, "tile", ()))
            frame = _whole(picture, content, name)
            if deep and np.ptp(frame.pixels) < NARROW:
                notes += (f"{name}: 16-bit pixels of a narrow range: the picture looks flat",)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image that can be read ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name}: the pixels are {too_large}") from error
    except Exception as error:
        raise _damaged(name, error) from error
    return Frame(frame.pixels, name, notes=(*notes, *frame.notes))


def _damaged(name: str, error: Exception) -> DataError:
    """Of any error of Pillow: OSError, ValueError, SyntaxError, struct.error and KeyError have been seen."""
    return DataError(f"{name}: the image is damaged ({str(error) or type(error).__name__})")


def _notes(picture: Image.Image, name: str) -> tuple[str, ...]:
    """What is known before decoding: whether there are more pictures; counting would take long."""
    # A JPEG with several pictures (MPO) holds previews or the other eye: not worth a word.
    if picture.format == "TIFF" and _has_second_page(picture):
        return (f"{name}: a document, the first of several pages is used",)
    animated = picture.format in ("GIF", "WEBP", "PNG") and getattr(picture, "is_animated", False)
    return (f"{name}: an animation, the first of several frames is used",) if animated else ()


def _has_second_page(picture: Image.Image) -> bool:
    try:
        picture.seek(1)
    except EOFError:
        return False
    finally:
        picture.seek(0)
    return True


# ----------------------------------------------------------------- JPEG


def _limit_scans(content: bytes, pixels: int, name: str) -> None:
    """Refuse a JPEG whose scans cost much more work than its pixels."""
    scans = _count_scans(content)
    if scans > MAX_SCANS or scans * pixels > max(MAX_SCAN_PIXELS, 4 * pixels):
        raise DataError(f"{name}: a JPEG of {scans} scans would take too long to decode")


def _count_scans(content: bytes) -> int:
    """Start-of-scan markers of the first picture; segments are jumped over, data searched."""
    at, scans = 2, 0
    while (at := content.find(b"\xff", at)) >= 0 and at + 3 < len(content):
        marker = content[at + 1]
        if marker == 0xD9:
            break
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        scans += marker == 0xDA
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return scans


def _whole(picture: Image.Image, content: bytes, name: str) -> Frame:
    """The picture; also a JPEG that lacks nothing but its end marker, as some cameras write it.

    Where image data are missing, libjpeg goes on with zeros. So the file is decoded twice, with
    other bytes behind it, and is whole if that changes no pixel.
    """
    from PIL import Image

    try:
        return frame_of(picture, name)
    except DataError as error:
        if picture.format not in ("JPEG", "MPO") or "truncated" not in str(error):
            raise
        body = content.rstrip(b"\xff")
        found = []
        for filler in (b"", bytes(range(1, 255)) * 4):
            mended = io.BytesIO(body + filler + b"\xff\xd9")
            with Image.open(mended, formats=["JPEG"]) as again:
                found.append(frame_of(again, name))
        if not np.array_equal(found[0].pixels, found[1].pixels):
            raise
        note = f"{name}: the JPEG has no end marker; all pixels are there"
        return Frame(found[0].pixels, name, notes=(note, *found[0].notes))


# ----------------------------------------------------------------- pixels


def _to_rgb(picture: Image.Image, name: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """(H, W, 3) upright RGB of a loaded picture of any mode: transparency on white."""
    from PIL import Image

    if picture.mode == "F" or (picture.mode == "I" and picture.format == "TIFF"):
        raise DataError(f"{name}: 32-bit pixels have no known range; save it with 8 or 16 bits")
    notes: tuple[str, ...] = ()
    if picture.mode.startswith("I"):
        gray, notes = _gray_16_bit(np.asarray(picture), name)
        pixels = np.repeat(gray[..., None], 3, axis=2)
    elif picture.mode == "RGB" and "transparency" not in picture.info:
        pixels = np.asarray(picture)
    else:
        width, height = picture.size
        pixels = np.empty((height, width, 3), np.uint8)
        rows = max(STRIP_PIXELS // max(width, 1), 1)
        clear = picture.has_transparency_data
        for top in range(0, height, rows):
            strip = picture.crop((0, top, width, min(top + rows, height)))
            if clear:
                strip = strip.convert("RGBA")
                white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
                strip = Image.alpha_composite(white, strip)
            pixels[top : top + rows] = np.asarray(strip.convert("RGB"))
    return _upright(pixels, picture), notes


def _gray_16_bit(values: NDArray[np.integer], name: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """16-bit gray to 8 bits: the upper byte, or the used range where that is narrow.

    Cameras of heat count in a small part of 16 bits, and 10 or 12 bits of others lie in the
    lower ones: their upper byte alone is flat or dark. Single hot or dead pixels are left out of
    the range. A note comes back if it was stretched.
    """
    counts: NDArray[np.uint16] = np.clip(values, 0, 65535).astype(np.uint16)
    step = max(int((counts.size / 1_000_000) ** 0.5), 1)
    sample = counts[::step, ::step].astype(np.float32)
    low, high = (int(v) for v in np.percentile(sample, (0.1, 99.9)))
    if high <= low or (high - low) >> 8 >= NARROW:
        return (counts >> 8).astype(np.uint8), ()
    scale = np.float32(255 / (high - low))
    gray = np.empty(counts.shape, np.uint8)
    rows = max(STRIP_PIXELS // max(counts.shape[1], 1), 1)
    for top in range(0, len(counts), rows):
        part = counts[top : top + rows].astype(np.float32) - low
        gray[top : top + rows] = np.clip(part * scale + np.float32(0.5), 0, 255)
    note = f"{name}: 16-bit pixels of a narrow range, {low} to {high}, are stretched to 8 bits"
    return gray, (note,)


def _upright(pixels: NDArray[np.uint8], picture: Image.Image) -> NDArray[np.uint8]:
    """The pixels turned as the EXIF data say; damaged ones say nothing."""
    orientation = 1
    with contextlib.suppress(Exception):
        orientation = int(picture.getexif().get(ORIENTATION, 1))
    if orientation not in range(2, 9):
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    flip_x, flip_y = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
