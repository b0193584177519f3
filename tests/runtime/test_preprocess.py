"""Which size an image gets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.runtime.preprocess import InputRule, resize

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
