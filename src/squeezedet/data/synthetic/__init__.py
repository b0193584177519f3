"""A generator of road scenes: pictures of a drawn street with exact KITTI labels.

It feeds the tests, the picture that the package shows, and training where real
pictures are few. Everything follows from the seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.sample import Objects
from squeezedet.data.synthetic.scene import SyntheticConfig
from squeezedet.errors import UsageError

__all__ = ["SyntheticConfig", "generate", "write_folder"]

_DEFAULT = SyntheticConfig()
_JPEG_QUALITY = 92
MIN_SIZE = (64, 32)


def generate(
    seed: int, width: int = 1248, height: int = 384, config: SyntheticConfig = _DEFAULT
) -> tuple[NDArray[np.uint8], Objects]:
    """Draw one road scene.

    Args:
        seed: the same seed, size and config give the same pixels and labels.
        width: of the picture in pixels.
        height: of the picture in pixels.
        config: what is labelled, how many objects, how much noise.

    Returns:
        The picture, (height, width, 3) uint8 RGB, and its labels, nearest first. A box
        holds the whole silhouette, also where something nearer covers it, cut to the picture.
        ``truncated`` is the share of the uncut box outside; ``occluded`` follows from the
        share of the object's pixels that are seen: 0 from 90 %, 1 from 50 %, 2 below.

    Raises:
        UsageError: a negative seed, or a picture smaller than 64x32.
    """
    if seed < 0:
        raise UsageError(f"the seed of a synthetic scene is 0 or more, not {seed}")
    if width < MIN_SIZE[0] or height < MIN_SIZE[1]:
        raise UsageError(
            f"a synthetic picture has at least {MIN_SIZE[0]}x{MIN_SIZE[1]} pixels, "
            f"not {width}x{height}"
        )
    from squeezedet.data.synthetic.render import render
    from squeezedet.data.synthetic.scene import random_scene

    rng = np.random.default_rng(seed)
    scene = random_scene(rng, width, height, config)
    return render(rng, scene, config)


def write_folder(
    root: Path | str,
    count: int,
    seed: int = 0,
    width: int = 1248,
    height: int = 384,
    val_fraction: float = 0.1,
) -> None:
    """Write ``count`` scenes as a KITTI folder that ``read_folder`` reads.

    Args:
        root: gets ``image_2/*.jpg``, ``label_2/*.txt`` and ``manifest.tsv`` with the splits.
        count: number of scenes; scene i has the seed ``seed + i``.
        seed: of the first scene.
        width: of the pictures in pixels.
        height: of the pictures in pixels.
        val_fraction: share of the scenes, the last ones, in split ``val``; the others are
            ``train``.

    Raises:
        UsageError: as ``generate``; no scenes asked for, or a share outside 0 to 1.
    """
    if count < 1:
        raise UsageError(f"a folder holds at least one scene, not {count}")
    if not 0 <= val_fraction <= 1:
        raise UsageError(f"the val fraction is a share from 0 to 1, not {val_fraction:g}")
    from PIL import Image

    from squeezedet.data.kitti import format_labels

    root = Path(root)
    for name in ("image_2", "label_2"):
        (root / name).mkdir(parents=True, exist_ok=True)
    train = count - round(count * val_fraction)
    lines = ["id\tsplit"]
    for i in range(count):
        image, objects = generate(seed + i, width, height)
        name = f"{i:06d}"
        picture = root / "image_2" / f"{name}.jpg"
        partial = picture.with_suffix(".part")
        Image.fromarray(image).save(partial, format="JPEG", quality=_JPEG_QUALITY)
        partial.replace(picture)
        _write_text(root / "label_2" / f"{name}.txt", format_labels(objects))
        lines.append(f"{name}\t{'train' if i < train else 'val'}")
    _write_text(root / "manifest.tsv", "\n".join(lines) + "\n")


def _write_text(path: Path, text: str) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
