"""Images and boxes change together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.training.augment import Example, change_colors, crop_and_scale, drift, flip


def picture(x1: int, y1: int, x2: int, y2: int, width: int = 200, height: int = 100) -> Example:
    """A white rectangle on black, and its box."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y1:y2, x1:x2] = 255
    box = np.array([[x1, y1, x2, y2]], np.float32)
    return Example(pixels, box, np.zeros(1, np.int64), np.empty((0, 4), np.float32))


def bright_box(pixels: np.ndarray) -> list[int]:
    """Where the picture is white (the mean colour outside the image is not)."""
    white = (pixels > 170).all(-1)
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_flip_is_its_own_inverse() -> None:
    example = picture(20, 30, 77, 60)
    once, twice = flip(example), flip(flip(example))
    assert once.xyxy[0].tolist() == bright_box(once.pixels)
    assert (twice.pixels == example.pixels).all()
    assert (twice.xyxy == example.xyxy).all()


@given(st.floats(0.5, 2), st.floats(0.5, 2), st.floats(-80, 120), st.floats(-50, 60))
def test_boxes_follow_the_pixels(sx: float, sy: float, left: float, top: float) -> None:
    example = picture(60, 30, 140, 80)
    window = crop_and_scale(example, (sx, sy), (left, top), (160, 96), min_visible=0.2)
    assert window.pixels.shape == (96, 160, 3)
    assert len(window.xyxy) + len(window.regions) <= 1
    if len(window.xyxy) and min(np.diff(window.xyxy[0].reshape(2, 2), axis=0)[0]) > 4:
        assert np.abs(np.array(bright_box(window.pixels)) - window.xyxy[0]).max() <= 1.6


def test_an_object_mostly_outside_becomes_a_region() -> None:
    example = picture(60, 30, 140, 80)
    window = crop_and_scale(example, (1.0, 1.0), (130, 0), (64, 96), min_visible=0.35)
    assert len(window.xyxy) == 0
    assert window.regions.tolist() == [[0, 30, 10, 80]]


@given(st.integers(0, 2**32))
def test_drift_never_cuts_an_object(seed: int) -> None:
    example = picture(25, 12, 90, 80)
    drifted = drift(example, np.random.default_rng(seed))
    size = drifted.xyxy[0, 2:] - drifted.xyxy[0, :2]
    assert size.tolist() == [65, 68]
    assert drifted.xyxy[0].tolist() == bright_box(drifted.pixels)
    height, width = drifted.pixels.shape[:2]
    assert 200 - 26 <= width <= 350
    assert 100 - 13 <= height <= 200


def test_drift_without_objects() -> None:
    example = picture(25, 12, 90, 80)
    empty = Example(example.pixels, np.empty((0, 4), np.float32), np.empty(0, np.int64), example.regions)
    big = Example(np.zeros((375, 1242, 3), np.uint8), empty.xyxy, empty.class_id, empty.regions)
    assert drift(big, np.random.default_rng(0)).xyxy.shape == (0, 4)


def test_colour_leaves_boxes_and_changes_pixels() -> None:
    example = picture(25, 12, 90, 80)
    grey = Example(np.full_like(example.pixels, 90), example.xyxy, example.class_id, example.regions)
    changed = change_colors(grey, np.random.default_rng(1), 0.6)
    assert changed.xyxy is grey.xyxy
    assert (changed.pixels != grey.pixels).any()
    assert changed.pixels.dtype == np.uint8


@pytest.mark.parametrize("strength", [0.0])
def test_colour_of_strength_zero_changes_nothing(strength: float) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
    empty = np.empty((0, 4), np.float32)
    example = Example(pixels, empty, np.empty(0, np.int64), empty)
    assert np.abs(change_colors(example, rng, strength).pixels.astype(int) - pixels).max() <= 1
