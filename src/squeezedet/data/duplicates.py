"""A look at every image, and which two show nearly the same.

A picture of which training saw a twin says nothing about what a detector has learned, so a twin
across splits is a leak. Two steps find it:

1. A difference hash: 16x16 bits, is a cell brighter than its left neighbor? Pairs of images with
   at most 64 of 256 bits unlike are candidates (chance gives 128 +- 8).
2. The correlation of two 34x32 thumbnails without their coarse brightness (a box blur of 9 is
   subtracted): fog and a bright sky are alike everywhere, edges are not. 0.6 is a twin.

On a set of KITTI drives and fog photographs true pairs (one standing camera, two times) have 0.70
and more, the best false one 0.56. Mirrored twins count. What is cropped, or turned, or a second of
driving away, is not found.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.sample import upright_size
from squeezedet.errors import DataError
from squeezedet.files import read_regular
from squeezedet.media.images import FORMATS, MAX_FILE_BYTES, MAX_PIXELS, Frame, frame_of, read_image

THUMBNAIL = (34, 32)  # (width, height): halved, the 17x16 that a 16x16 difference hash needs
MAX_UNLIKE_BITS = 64
MIN_CORRELATION = 0.6
BLUR = 9
MAX_TWINS = 20  # of one picture: a camera that never moves has many
FLAT = 1e-6  # a thumbnail with less detail has none but rounding

Grey = NDArray[np.uint8]
Bits = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What is known of an image that was decoded.

    Attributes:
        width, height: of the upright image.
        digest: of the file's bytes.
        grey: (32, 34) uint8 thumbnail, the whole image stretched.
        notes: what the reader says of it, see ``Frame.notes``.
    """

    width: int
    height: int
    digest: bytes
    grey: Grey
    notes: tuple[str, ...] = ()


def look_at_all(paths: Iterable[Path]) -> Mapping[Path, Look | str]:
    """A look at each image, or the sentence that says why it cannot be used.

    Decoding takes place in several threads; Pillow lets go of the interpreter meanwhile.
    """

    def look_or_reason(path: Path) -> Look | str:
        try:
            return look_at(path)
        except DataError as error:
            return str(error)

    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(unique, pool.map(look_or_reason, unique), strict=True))


def look_at(path: Path) -> Look:
    """Decode one image, as small as its format allows.

    A JPEG is decoded at an eighth of its size, which reads every byte of it in a fraction of the
    time; what ``read_image`` refuses is refused here.

    Raises:
        DataError: the image cannot be read.
    """
    content = read_regular(path, MAX_FILE_BYTES, what="image")
    found = _eighth(content, str(path))
    if found is None:
        frame = read_image(content, str(path))
        found = frame, (frame.pixels.shape[1], frame.pixels.shape[0])
    frame, (width, height) = found
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return Look(width, height, digest, thumbnail(frame.pixels), frame.notes)


def thumbnail(pixels: NDArray[np.uint8]) -> Grey:
    """(32, 34) gray picture of (H, W, 3) RGB, the whole image stretched."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).convert("L").resize(THUMBNAIL, Image.Resampling.BOX))


def _eighth(content: bytes, name: str) -> tuple[Frame, tuple[int, int]] | None:
    """A JPEG at an eighth and the (width, height) of all of it; None for what the strict reader must read."""
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
        try:
            return frame_of(picture, name), size
        except DataError:
            return None  # the strict reader says why, or can make it whole


def twins(here: Sequence[Look], there: Sequence[Look]) -> Iterator[tuple[int, int, float]]:
    """Nearly equal pictures: index here, index there and correlation; the best of each here.

    Files of equal bytes are left out.
    """
    grey, others = _stacked(here), _stacked(there)
    hashes, theirs, mirrored = difference_hash(grey), difference_hash(others), difference_hash(others[..., ::-1])
    fine = fine_detail(others)
    digests = np.array([look.digest for look in there], dtype="V16")
    for i, look in enumerate(here):
        near = [np.bitwise_count(bits ^ hashes[i]).sum(axis=1) <= MAX_UNLIKE_BITS for bits in (theirs, mirrored)]
        chosen = np.flatnonzero((near[0] | near[1]) & (digests != np.array(look.digest, dtype="V16")))
        if not len(chosen):
            continue
        own = fine_detail(grey[i : i + 1])[0]
        straight, turned = (
            np.where(close[chosen], (fine[chosen] * picture).sum(axis=(1, 2)), -1)
            for close, picture in zip(near, (own, own[:, ::-1]), strict=True)
        )
        alike = np.maximum(straight, turned)
        for k in np.argsort(-alike, kind="stable")[:MAX_TWINS]:
            if alike[k] >= MIN_CORRELATION:
                yield i, int(chosen[k]), float(alike[k])


def _stacked(looks: Sequence[Look]) -> Grey:
    return np.array([look.grey for look in looks], dtype=np.uint8).reshape(-1, 32, 34)


def difference_hash(grey: Grey) -> Bits:
    """(N, 32, 34) thumbnails to (N, 4) words of 16x16 bits: brighter than the cell to its left."""
    cells = grey.reshape(-1, 16, 2, 17, 2).sum(axis=(2, 4), dtype=np.int64)
    bits = cells[:, :, 1:] > cells[:, :, :-1]
    return np.packbits(bits.reshape(-1, 256), axis=1).view(np.uint64)


def fine_detail(grey: Grey) -> NDArray[np.float32]:
    """(N, 32, 34) thumbnails less their coarse brightness, with mean 0 and length 1.

    The product of two, summed, is their correlation, -1 to 1. A thumbnail that has nothing but
    coarse brightness is 0 everywhere.
    """
    fine = np.empty(grey.shape, dtype=np.float32)
    for k, picture in enumerate(grey.astype(np.float64)):
        padded = np.pad(picture, BLUR // 2, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (BLUR, BLUR))
        detail = picture - windows.mean(axis=(2, 3))
        detail -= detail.mean()
        length = float(np.linalg.norm(detail))
        fine[k] = detail / length if length > FLAT else 0
    return fine
