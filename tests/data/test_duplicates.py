"""Looks at images, and their comparison: what changes nothing about a picture changes nothing about the answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from squeezedet.data.duplicates import difference_hash, fine_detail, look_at, look_at_all
from squeezedet.data.sample import image_size
from squeezedet.errors import DataError
from squeezedet.media.images import read_image

Grey = NDArray[np.uint8]
thumbnails = hnp.arrays(np.uint8, (32, 34), elements=st.integers(0, 255))


def correlation(a: Grey, b: Grey) -> float:
    x, y = fine_detail(np.stack([a, b]))
    return float((x * y).sum())


@given(thumbnails, thumbnails)
def test_correlation_is_symmetric_and_bounded(a: Grey, b: Grey) -> None:
    alike = correlation(a, b)
    assert abs(alike) <= 1 + 1e-5
    assert abs(alike - correlation(b, a)) < 1e-5


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 3))
def test_brightness_and_contrast_change_nothing(seed: int, lift: int, gain: int) -> None:
    a = np.random.default_rng(seed).integers(0, 64, (32, 34), dtype=np.uint8)
    b = (a * gain + lift).astype(np.uint8)
    assert correlation(a, b) > 0.999
    assert (difference_hash(a[None]) == difference_hash(b[None])).all()


@given(thumbnails)
def test_a_mirrored_picture_has_the_mirrored_detail(a: Grey) -> None:
    mirrored = fine_detail(a[None, :, ::-1])
    np.testing.assert_allclose(fine_detail(a[None])[..., ::-1], mirrored, atol=1e-5)


def test_a_flat_picture_is_like_no_other() -> None:
    flat = np.full((32, 34), 90, dtype=np.uint8)
    assert correlation(flat, flat) == 0


def test_a_hash_bit_says_which_cell_is_brighter() -> None:
    grey = np.zeros((1, 32, 34), dtype=np.uint8)
    grey[0, 4:6, 6:8] = 200  # cell (row 2, column 3): brighter than its left, darker is its right
    bits = np.unpackbits(difference_hash(grey).view(np.uint8)).reshape(16, 16)
    assert np.argwhere(bits).tolist() == [[2, 2]]


def test_unlike_pictures_have_far_hashes() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (60, 32, 34), dtype=np.uint8)
    hashes = difference_hash(grey)
    unlike = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=-1)
    assert unlike[~np.eye(60, dtype=bool)].min() > 64


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
