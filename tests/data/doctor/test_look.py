"""A look at an image: the strict reader's size and verdict, in a fraction of its time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squeezedet.data.doctor.pictures import look_at, look_at_all
from squeezedet.data.sample import image_size
from squeezedet.errors import DataError
from squeezedet.media.images import read_image


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_size_and_thumbnail_are_those_of_the_upright_image(tmp_path: Path, suffix: str, orientation: int) -> None:
    pattern = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    extra = {} if suffix == ".bmp" else {"exif": exif}
    Image.fromarray(pattern).resize((360, 240)).save(path, **extra)
    pixels = read_image(path).pixels
    look = look_at(path)
    assert (look.height, look.width) == pixels.shape[:2]
    assert image_size(path) == (look.width, look.height)
    whole = Image.fromarray(pixels).convert("L").resize((34, 32), Image.Resampling.BOX)
    assert np.abs(np.asarray(whole, dtype=int) - look.grey).mean() < 4


def test_what_the_strict_reader_refuses_is_refused(tmp_path: Path) -> None:
    bad = {"empty.jpg": b"", "text.jpg": b"hello", "missing.jpg": None}
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((320, 240), 80).save(whole)
    bad["half.jpg"] = whole.read_bytes()[: whole.stat().st_size // 2]
    for name, content in bad.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_image(path)
        with pytest.raises(DataError, match=name):
            look_at(path)
    looks = look_at_all([whole, *(tmp_path / name for name in bad)])
    assert [isinstance(look, str) for look in looks.values()] == [False, True, True, True, True]
