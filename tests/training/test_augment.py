"""Images and boxes change together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from squeezedet.boxes import intersection, iou
from squeezedet.preprocess import InputRule
from squeezedet.training.augment import (
    CANVAS,
    MIN_HEIGHT,
    MIN_WIDTH,
    Donor,
    Example,
    change_colors,
    crop_and_scale,
    distort,
    donors,
    drift,
    flip,
    mosaic,
    paste,
    paste_decoy,
    random_canvas,
    random_crop,
    ssd_augment,
    warp,
)
from squeezedet.training.recipe import Recipe

NO_BOXES = np.empty((0, 4), np.float32)


def picture(x1: int, y1: int, x2: int, y2: int, width: int = 200, height: int = 100) -> Example:
    """A white rectangle on black, and its box."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y1:y2, x1:x2] = 255
    box = np.array([[x1, y1, x2, y2]], np.float32)
    return Example(pixels, box, np.array([2]), NO_BOXES)


def bright_box(pixels: np.ndarray) -> list[int]:
    """Where the picture is white (the mean colour outside the image is not)."""
    white = (pixels > 170).all(-1)
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@given(st.integers(0, 2**32))
def test_a_mosaic_holds_four_images_at_half_their_scale(seed: int) -> None:
    recipe = Recipe(mosaic=1.0, scale=(0.8, 1.25), stretch=(1.0, 1.0))
    scenes = [picture(60 + 10 * k, 20, 130, 80) for k in range(4)]
    scenes[3] = picture(60, 40, 70, 55)  # below MIN_HEIGHT at half its scale
    window = mosaic(scenes, recipe, (208, 112), np.random.default_rng(seed), InputRule(208, 112))
    assert window.pixels.shape == (112, 208, 3)
    assert len(window.xyxy) == len(window.class_id)
    right, bottom = window.xyxy[:, 0] >= 104, window.xyxy[:, 1] >= 56
    quarters = (2 * right + bottom).tolist()
    assert quarters == sorted(set(quarters))  # at most one object each, in order
    assert 3 not in quarters
    for box, x, y in zip(window.xyxy, right * 104, bottom * 56, strict=True):
        width, height = box[2:] - box[:2]
        assert width >= MIN_WIDTH
        assert MIN_HEIGHT <= height <= 60 * 1.25 / 2 * 1.2
        quarter = np.array([x, y, x, y])
        seen = bright_box(window.pixels[y : y + 56, x : x + 104]) + quarter
        assert np.abs(seen - box).max() <= 1.6


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


# ------------------------------------------------------------ SSD's augmentation

BILINEAR = Image.Resampling.BILINEAR
MEAN = (123, 117, 104)


seeds = st.integers(0, 2**32)


@given(seeds)
def test_the_result_follows_from_the_seed(seed: int) -> None:
    rng = np.random.default_rng(5)
    example = replace(picture(60, 30, 140, 80), pixels=rng.integers(0, 256, (100, 200, 3), np.uint8))
    one, two = (ssd_augment(example, (64, 48), np.random.default_rng(seed)) for _ in range(2))
    assert (one.pixels == two.pixels).all()
    assert (one.xyxy == two.xyxy).all()
    assert one.pixels.shape == (48, 64, 3)
    assert one.pixels.dtype == np.uint8
    assert one.xyxy.dtype == one.regions.dtype == np.float32
    boxes = np.concatenate([one.xyxy, one.regions])
    assert (boxes >= 0).all()
    assert (boxes <= (64, 48, 64, 48)).all()
    assert len(one.xyxy) == len(one.class_id)
    assert len(boxes) <= 1


@given(seeds)
def test_boxes_follow_the_pixels_of_ssds_crop(seed: int) -> None:
    """Without the colours: the white rectangle stands where its box says."""
    example, rng = picture(60, 30, 140, 80), np.random.default_rng(seed)
    window = random_crop(example, random_canvas(example, rng), rng)
    result = warp(example, window, (160, 96), BILINEAR)
    if len(result.xyxy) and (result.xyxy[0, 2:] - result.xyxy[0, :2]).min() > 4:
        assert np.abs(np.array(bright_box(result.pixels)) - result.xyxy[0]).max() <= 1.6


@pytest.mark.parametrize("seed", range(4))
def test_the_mirror_takes_boxes_along(seed: int) -> None:
    """The rectangle as an area: an image without objects is not cropped."""
    empty = replace(picture(20, 30, 77, 60), xyxy=NO_BOXES, class_id=np.empty(0, np.int64))
    example = replace(empty, regions=np.array([[20, 30, 77, 60]], np.float32))
    result = ssd_augment(example, (200, 100), np.random.default_rng(seed))
    box = result.regions[0]
    edge = np.array([3, 3, -3, -3])
    x1, y1, x2, y2 = (box + edge).astype(int)
    assert (result.pixels[y1:y2, x1:x2].min(-1) > 80).all()
    x1, y1, x2, y2 = np.clip(box - edge, 0, 199).astype(int)
    assert (result.pixels[(y1 + y2) // 2, [x1, x2 - 1]].max(-1) < 130).all()


# ------------------------------------------------------------------- colours


def test_colours_leave_boxes_and_change_pixels() -> None:
    rng = np.random.default_rng(3)
    example = replace(picture(60, 30, 140, 80), pixels=rng.integers(0, 256, (100, 200, 3), np.uint8))
    changed = [distort(example, np.random.default_rng(seed)) for seed in range(20)]
    assert all(result.xyxy is example.xyxy for result in changed)
    different = [(result.pixels != example.pixels).any() for result in changed]
    assert 14 <= sum(different) <= 20  # nothing happens once in 16


def test_brightness_and_contrast_keep_their_bounds() -> None:
    """Grey has no hue: what changes is (v + b) c, |b| <= 32 and 0.5 <= c <= 1.5."""
    grey = replace(picture(1, 1, 2, 2), pixels=np.full((4, 4, 3), 100, np.uint8))
    rng = np.random.default_rng(0)
    values = [int(distort(grey, rng).pixels[0, 0, 0]) for _ in range(1000)]
    assert min(values) >= round(68 * 0.5) - 1
    assert max(values) <= round(132 * 1.5) + 1
    assert min(values) < 60
    assert max(values) > 150
    assert np.mean(np.array(values) == 100) == pytest.approx(1 / 4, abs=0.05)


def test_hue_turns_by_at_most_36_degrees() -> None:
    """Red stays red or turns to orange or pink: green and blue stay below 36 / 60 of it."""
    red = replace(picture(1, 1, 2, 2), pixels=np.full((4, 4, 3), (200, 0, 0), np.uint8))
    turned = 0
    for seed in range(200):
        r, g, b = (int(v) for v in distort(red, np.random.default_rng(seed)).pixels[0, 0])
        floor = min(g, b)
        assert min(g, b) <= max(g, b) < floor + 0.64 * (r - floor) + 2
        turned += g != b
    assert turned == pytest.approx(100, abs=25)


# ---------------------------------------------------------------- geometry


def test_canvas_is_up_to_four_times_the_image_and_holds_it() -> None:
    example = picture(60, 30, 140, 80)
    windows = np.array([random_canvas(example, np.random.default_rng(s)) for s in range(400)])
    width, height = windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1]
    assert width / height == pytest.approx(2)
    assert (windows[:, :2] <= 0).all()
    assert (windows[:, 2:] >= (200 - 1e-9, 100 - 1e-9)).all()
    assert np.mean(width == 200) == pytest.approx(0.5, abs=0.08)
    assert 200 * CANVAS[1] * 0.95 < width.max() <= 200 * CANVAS[1]


def test_crops_show_an_object_or_are_the_canvas() -> None:
    """The seven kinds: sizes of 0.3 to 1, aspects of 0.5 to 2, inside the canvas."""
    example = picture(60, 30, 140, 80)
    canvas = (-100.0, -50.0, 300.0, 150.0)
    crops = np.array([random_crop(example, canvas, np.random.default_rng(s)) for s in range(400)])
    whole = (crops == canvas).all(axis=1)
    assert 1 / 7 - 0.05 < whole.mean() < 0.5
    shares = (crops[:, 2:] - crops[:, :2]) / (400, 200)
    aspect = shares[:, 0] / shares[:, 1]
    assert (aspect >= 0.5 - 1e-9).all()
    assert (aspect <= 2 + 1e-9).all()
    scale = np.sqrt(shares.prod(axis=1))
    assert (scale >= 0.3 - 1e-9).all()
    assert (scale <= 1 + 1e-9).all()
    assert (crops[:, :2] >= canvas[:2]).all()
    assert (crops[:, 2:] <= np.array(canvas[2:]) + 1e-9).all()
    overlaps = iou(crops, example.xyxy.astype(np.float64))[:, 0]
    assert np.mean(overlaps[~whole] >= 0.1) > 0.5


def test_crops_ask_for_much_of_a_large_object() -> None:
    """One kind in seven asks for an IoU of 0.9, one more for 0.7."""
    example = picture(5, 5, 195, 95)
    rng = np.random.default_rng(0)
    crops = np.array([random_crop(example, (0.0, 0.0, 200.0, 100.0), rng) for _ in range(300)])
    cut = crops[(crops != (0, 0, 200, 100)).any(axis=1)]
    overlaps = iou(cut, example.xyxy.astype(np.float64))[:, 0]
    assert (overlaps >= 0.7).mean() > 0.25
    assert (overlaps >= 0.9).mean() > 0.05


def test_an_image_without_objects_is_not_cropped() -> None:
    empty = replace(picture(1, 1, 2, 2), xyxy=NO_BOXES, class_id=np.empty(0, np.int64))
    canvas = (-10.0, 0.0, 300.0, 200.0)
    assert random_crop(empty, canvas, np.random.default_rng(0)) == canvas


def test_outside_the_image_lies_the_mean() -> None:
    result = warp(picture(60, 30, 140, 80), (-200.0, -100.0, 200.0, 100.0), (40, 20), BILINEAR)
    assert (result.pixels[:10] == MEAN).all()
    assert (result.pixels[:, :20] == MEAN).all()
    assert result.pixels[10:, 20:].min() == 0
    assert result.xyxy.tolist() == [[26, 13, 34, 18]]


def test_a_window_beside_the_image() -> None:
    result = warp(picture(60, 30, 140, 80), (300.0, 0.0, 400.0, 50.0), (40, 20), BILINEAR)
    assert (result.pixels == MEAN).all()
    assert len(result.xyxy) == len(result.regions) == 0


@pytest.mark.parametrize(("left", "kept"), [(99.0, True), (101.0, False)])
def test_an_object_stays_while_its_centre_is_inside(left: float, kept: bool) -> None:
    result = warp(picture(60, 30, 140, 80), (left, 0.0, 200.0, 100.0), (101, 100), BILINEAR)
    assert len(result.xyxy) == kept
    assert len(result.regions) == (not kept)
    assert result.class_id.tolist() == [2] * kept


def test_regions_move_and_an_object_of_less_than_a_pixel_becomes_one() -> None:
    example = replace(picture(60, 30, 61, 31), regions=np.array([[0, 0, 100, 100]], np.float32))
    result = warp(example, (50.0, 0.0, 150.0, 100.0), (50, 50), BILINEAR)
    assert len(result.xyxy) == 0
    assert result.regions.tolist() == [[0, 0, 25, 50], [5, 15, 5.5, 15.5]]


# ------------------------------------------------------------ pasting

RED = np.array([250, 10, 10], np.uint8)


def empty(width: int, height: int, level: int = 100) -> Example:
    pixels = np.full((height, width, 3), level, np.uint8)
    return Example(pixels, NO_BOXES, np.zeros(0, np.int64), NO_BOXES)


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
    scene = Example(scene.pixels, taken, np.zeros(2, np.int64), NO_BOXES)
    got = paste(scene, donor, source.pixels, np.random.default_rng(seed))
    hidden = intersection(got.xyxy[2:], taken)
    smaller = (got.xyxy[2:, 2] - got.xyxy[2:, 0]) * (got.xyxy[2:, 3] - got.xyxy[2:, 1])
    assert (hidden <= 0.151 * smaller[:, None]).all()


def test_a_decoy_changes_pixels_and_no_label() -> None:
    source, donor = red_person()
    marked = Example(source.pixels, donor.xyxy[None], np.array([1]), NO_BOXES)
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
    found = donors(1, boxes, class_id, whole, [1])
    assert [(d.index, d.xyxy.tolist(), d.class_id) for d in found] == [(1, [0, 0, 40, 90], 1)]
    assert donors(0, boxes, class_id, ~whole, [1]) == donors(0, NO_BOXES, class_id[:0], whole[:0], [1]) == []
