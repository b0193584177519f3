"""Objects land in other scenes where their boxes say, and hide nothing that is labelled."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.boxes import intersection
from squeezedet.training.augment import MIN_HEIGHT, MIN_WIDTH, Donor, Example, donors, paste, paste_decoy

NONE = np.zeros((0, 4), np.float32)
RED = np.array([250, 10, 10], np.uint8)


def empty(width: int, height: int, level: int = 100) -> Example:
    pixels = np.full((height, width, 3), level, np.uint8)
    return Example(pixels, NONE, np.zeros(0, np.int64), NONE)


def red_person(width: int = 400, height: int = 200) -> tuple[Example, Donor]:
    """A red box of 30x80 pixels with its foot at 180."""
    scene = empty(width, height, 110)
    box = np.array([100, 100, 130, 180], np.float32)
    scene.pixels[100:180, 100:130] = RED
    return scene, Donor(0, box, 1)


@given(st.integers(0, 10_000), st.integers(60, 700), st.integers(60, 400))
def test_the_box_holds_the_object(seed: int, width: int, height: int) -> None:
    source, donor = red_person()
    rng = np.random.default_rng(seed)
    scene = empty(width, height)
    got = paste(scene, donor, source.pixels, rng)
    assert (scene.pixels == 100).all()  # the scene itself is not touched
    if not len(got.xyxy):
        assert np.array_equal(got.pixels, scene.pixels)
        return
    assert got.class_id.tolist() == [1]
    x1, y1, x2, y2 = got.xyxy[0]
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    assert x2 - x1 >= MIN_WIDTH
    assert y2 - y1 >= MIN_HEIGHT
    assert abs((x2 - x1) / (y2 - y1) - 30 / 80) < 0.01
    redness = got.pixels[..., 0].astype(int) - got.pixels[..., 1]
    rows, columns = np.nonzero(redness > 120)
    assert abs(columns.min() - x1) <= 3
    assert abs(columns.max() + 1 - x2) <= 3
    assert abs(rows.min() - y1) <= 3
    assert abs(rows.max() + 1 - y2) <= 3


def test_what_is_smaller_stands_higher() -> None:
    """All feet lie on one line through the horizon: the perspective of the donor's scene."""
    source, donor = red_person()
    placed = [paste(empty(400, 200), donor, source.pixels, np.random.default_rng(i)).xyxy for i in range(60)]
    boxes = np.concatenate(placed)
    inside = boxes[boxes[:, 3] < 198]
    heights, feet = inside[:, 3] - inside[:, 1], inside[:, 3]
    assert len(inside) > 20
    assert np.allclose((feet - 96) / heights, (180 - 96) / 80, atol=0.02)


@given(st.integers(0, 10_000))
def test_labelled_objects_stay_visible(seed: int) -> None:
    source, donor = red_person()
    taken = np.array([[50, 90, 200, 190], [300, 80, 390, 160]], np.float32)
    scene = empty(400, 200)
    scene = Example(scene.pixels, taken, np.zeros(2, np.int64), NONE)
    got = paste(scene, donor, source.pixels, np.random.default_rng(seed))
    hidden = intersection(got.xyxy[2:], taken)
    smaller = (got.xyxy[2:, 2] - got.xyxy[2:, 0]) * (got.xyxy[2:, 3] - got.xyxy[2:, 1])
    assert (hidden <= 0.151 * smaller[:, None]).all()


def test_a_decoy_changes_pixels_and_no_label() -> None:
    source, donor = red_person()
    marked = Example(source.pixels, donor.xyxy[None], np.array([1]), NONE)
    changed = 0
    for seed in range(20):
        scene = empty(400, 200)
        got = paste_decoy(scene, donor, marked, np.random.default_rng(seed))
        assert not len(got.xyxy)
        red = got.pixels[..., 0].astype(int) - got.pixels[..., 1] > 60
        assert not red.any()  # never the labelled object
        changed += not np.array_equal(got.pixels, scene.pixels)
    assert changed > 5


def test_donors_are_whole_objects_of_rare_classes() -> None:
    boxes = np.array(
        [[0, 0, 40, 90], [100, 0, 140, 90], [110, 0, 150, 90], [200, 0, 204, 30], [300, 0, 340, 90]], np.float32
    )
    class_id = np.array([1, 1, 0, 1, 0])
    whole = np.array([True, True, True, True, True])
    found = donors([NONE, boxes], [np.zeros(0, np.int64), class_id], [np.zeros(0, bool), whole], [1])
    assert [(d.index, d.xyxy.tolist(), d.class_id) for d in found] == [(1, [0, 0, 40, 90], 1)]
    assert donors([boxes], [class_id], [~whole], [1]) == ()
