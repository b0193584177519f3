"""Which size an image gets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from squeezedet.preprocess import InputRule, fit, resize

RULE = InputRule(1248, 384)


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ((1242, 375), (1248, 384)),
        ((1224, 370), (1248, 384)),
        ((1248, 384), (1248, 384)),
        ((1280, 720), (912, 512)),
        ((640, 640), (688, 688)),
    ],
)
def test_common_shapes(image: tuple[int, int], size: tuple[int, int]) -> None:
    assert RULE.size(*image) == size


def test_fixed_rule_stretches() -> None:
    assert InputRule(1242, 375, fixed=True).size(640, 480) == (1242, 375)


@pytest.mark.parametrize(
    ("width", "height", "fixed"),
    [(1242, 375, False), (1248, 15, True), (4097, 16, True), (64.0, 64, False), (64, 64, 1)],
)
def test_rules_that_make_no_sense(width: int, height: int, fixed: bool) -> None:
    with pytest.raises(ValueError, match="must be"):
        InputRule(width, height, fixed)


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_any_image_fits_the_budget(width: int, height: int) -> None:
    w, h = RULE.size(width, height)
    assert w % 16 == h % 16 == 0
    assert min(w, h) >= 16
    assert w * h <= 1248 * 384
    if 1 / 8 <= width / height <= 8:
        assert abs(np.log(w / h * height / width)) <= np.log(1.03)
        assert w * h >= 0.85 * 1248 * 384


def test_resize_keeps_flat_colour_and_shape() -> None:
    pixels = np.full((37, 53, 3), (10, 20, 30), np.uint8)
    answer = resize(pixels, (64, 32))
    assert answer.shape == (32, 64, 3)
    assert (answer == (10, 20, 30)).all()
    assert resize(pixels, (53, 37)) is pixels


@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), st.tuples(st.integers(1, 200), st.integers(1, 200)))
@settings(deadline=None)
def test_resize_is_pillows_but_for_a_grey_level(image: tuple[int, int], size: tuple[int, int]) -> None:
    """The order of the two directions is fixed here, and not in every version of Pillow."""
    pixels = np.random.default_rng(0).integers(0, 256, (image[1], image[0], 3), dtype=np.uint8)
    at_once = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    assert np.abs(resize(pixels, size).astype(int) - np.asarray(at_once)).max() <= 1


def test_an_image_nearly_as_large_as_its_input_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (375, 1242, 3), dtype=np.uint8)
    answer = fit(pixels, RULE)
    assert RULE.content(1242, 375) == (1242, 375)
    assert answer.shape == (384, 1248, 3)
    assert (answer[:375, :1242] == pixels).all()
    assert (answer[:375, 1242:] == pixels[:, -1:]).all()
    assert (answer[375:] == answer[374]).all()


@pytest.mark.parametrize(
    ("rule", "image"),
    [
        (RULE, (1280, 720)),  # larger
        (RULE, (1224, 370)),  # smaller by more than the border may be
        (InputRule(1248, 384, fixed=True), (1242, 375)),  # stretched, as the rule says
    ],
)
def test_any_other_image_is_stretched(rule: InputRule, image: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (image[1], image[0], 3), dtype=np.uint8)
    size = rule.size(*image)
    assert rule.content(*image) == size
    assert (fit(pixels, rule) == resize(pixels, size)).all()


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_what_an_image_has_within_its_input(width: int, height: int) -> None:
    content, size = RULE.content(width, height), RULE.size(width, height)
    assert all(0 <= whole - part < 16 for whole, part in zip(size, content, strict=True))
    assert content in {size, (width, height)}
