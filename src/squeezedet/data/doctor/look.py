"""One look at each image: does it decode, how large is it, and a thumbnail to compare by."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.image_size import upright_size
from squeezedet.errors import DataError
from squeezedet.media.images import FORMATS, MAX_PIXELS, Frame, frame_of, read_image

THUMBNAIL = (34, 32)  # (width, height): halved, the 17x16 that a 16x16 difference hash needs


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What is known of an image that was decoded.

    Attributes:
        width, height: of the upright image.
        digest: of the file's bytes.
        grey: (32, 34) uint8 thumbnail, the whole image stretched.
    """

    width: int
    height: int
    digest: bytes
    grey: NDArray[np.uint8]


def look_at_all(paths: Iterable[Path]) -> Mapping[Path, Look | str]:
    """A look at each image, or the sentence that says why it cannot be used.

    Decoding takes place in several threads; Pillow lets go of the interpreter meanwhile.
    """
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(unique, pool.map(_look_or_reason, unique), strict=True))


def _look_or_reason(path: Path) -> Look | str:
    try:
        return look_at(path)
    except DataError as error:
        return str(error)


def look_at(path: Path) -> Look:
    """Decode one image, as small as its format allows.

    A JPEG is decoded at an eighth of its size, which reads every byte of it in a
    fraction of the time; what ``read_image`` refuses is refused here.

    Raises:
        DataError: the image cannot be read.
    """
    from PIL import Image

    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    found = _eighth(content, str(path))
    if found is None:
        frame = read_image(content, str(path))
        found = frame, (frame.pixels.shape[1], frame.pixels.shape[0])
    frame, (width, height) = found
    grey = Image.fromarray(frame.pixels).convert("L").resize(THUMBNAIL, Image.Resampling.BOX)
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return Look(width, height, digest, np.asarray(grey))


def _eighth(content: bytes, name: str) -> tuple[Frame, tuple[int, int]] | None:
    """A JPEG at an eighth and the (width, height) of all of it; None for any other content.

    Raises:
        DataError: the JPEG is damaged.
    """
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception:  # what is wrong, the strict reader says in a sentence
        return None
    with picture:
        width, height = picture.size
        if picture.format != "JPEG" or width * height > MAX_PIXELS:
            return None
        size = upright_size(picture)
        picture.draft(None, (max(width // 8, 1), max(height // 8, 1)))
        return frame_of(picture, name), size
