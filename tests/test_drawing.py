from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from squeezedet.drawing import COLORS, draw_boxes

WHITE = np.full((80, 120, 3), 255, np.uint8)


def test_rectangle_is_where_the_box_is() -> None:
    drawn = np.asarray(draw_boxes(WHITE, np.array([[20.0, 40, 100, 70]]), ["car 0.90"], np.array([0])))
    for y, x in ((55, 20), (55, 100), (40, 60), (70, 60)):
        assert tuple(drawn[y, x]) == COLORS[0]
    assert (drawn[45:65, 30:90] == 255).all()  # inside
    assert (drawn[74:] == 255).all()  # below
    assert (drawn[:15] == 255).all()  # above box and label


def test_label_stands_above_the_box_or_inside_at_the_upper_edge() -> None:
    low = np.asarray(draw_boxes(WHITE, np.array([[20.0, 40, 100, 70]]), ["car"], np.array([1])))
    high = np.asarray(draw_boxes(WHITE, np.array([[20.0, 0, 100, 70]]), ["car"], np.array([1])))
    assert (low[30:40, 20:40] == COLORS[1]).all(axis=-1).any()
    assert (high[3:12, 23:40] == COLORS[1]).all(axis=-1).any()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_the_picture_stays_as_it_was(mode: str) -> None:
    picture = Image.new(mode, (40, 30))
    before = picture.tobytes()
    drawn = draw_boxes(picture, np.array([[5.0, 5, 20, 20]]), ["a"], np.array([0]))
    assert picture.tobytes() == before
    assert drawn.mode == "RGB"
    assert drawn.tobytes() != picture.convert("RGB").tobytes()


def test_no_boxes_give_a_copy() -> None:
    picture = Image.new("RGB", (4, 3), "red")
    drawn = draw_boxes(picture, np.empty((0, 4)), [], np.empty(0, int))
    assert drawn is not picture
    assert drawn.tobytes() == picture.tobytes()


def test_best_box_is_drawn_last() -> None:
    same = np.array([[20.0, 40, 100, 70]] * 2)
    drawn = np.asarray(draw_boxes(WHITE, same, ["first", "second"], np.array([0, 1])))
    assert tuple(drawn[55, 20]) == COLORS[0]


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.lists(st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 4), max_size=3),
)
def test_any_box_in_any_image(size: tuple[int, int], boxes: list[tuple[float, ...]]) -> None:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.arange(len(boxes)) + len(COLORS)
    drawn = draw_boxes(Image.new("RGB", size), array, ["car 0.50"] * len(boxes), classes)
    assert drawn.size == size


def test_labels_do_not_cover_each_other() -> None:
    boxes = np.array([[20.0, 40, 100, 70], [22.0, 41, 100, 71], [24.0, 42, 102, 72]])
    labels = ["first 0.9", "second 0.8", "third 0.7"]
    drawn = np.asarray(draw_boxes(WHITE, boxes, labels, np.arange(3)))
    alone = np.asarray(draw_boxes(WHITE, boxes[:1], labels[:1], np.arange(1)))
    assert (drawn[25:40, 20:60] == alone[25:40, 20:60]).all()  # the best one stays readable
    for index in (1, 2):
        own = np.asarray(draw_boxes(WHITE, boxes, [""] * 3, np.arange(3)))
        grown = (drawn == COLORS[index]).all(-1).sum() - (own == COLORS[index]).all(-1).sum()
        assert grown > 50  # each label found a place of its own


def test_labels_of_lines_and_zones_stay_readable() -> None:
    markings = [(((20, 40), (100, 40)), "gate: 1", 3), (((20, 40), (100, 40), (60, 78)), "yard: 2", 4)]
    boxes = np.array([[20.0, 40, 100, 70]])
    nothing = np.empty((0, 4)), [], np.empty(0, int)
    marked = np.asarray(draw_boxes(WHITE, *nothing, markings))
    for number in (3, 4):  # each has a label beside the other's, and lines under both
        assert (marked == COLORS[number]).all(-1).sum() > 150
    bare, drawn = (
        np.asarray(draw_boxes(WHITE, boxes, [text], np.array([0]), markings)) == COLORS[0] for text in ("", "car 0.90")
    )
    assert drawn.all(-1).sum() > bare.all(-1).sum() + 50  # the box's label found a place of its own
    both = np.asarray(draw_boxes(WHITE, boxes, ["car 0.90"], np.array([0]), markings))
    assert (both[22:39, 20:60] == marked[22:39, 20:60]).all()


@pytest.mark.parametrize("number", range(len(COLORS)))
def test_letters_stand_out_from_every_color(number: int) -> None:
    """A contrast of 4.5 to 1 and more, as WCAG 2 wants of text."""
    drawn = np.asarray(draw_boxes(WHITE, np.array([[20.0, 40, 100, 70]]), ["car"], np.array([number])))
    label = drawn[28:39, 20:44].reshape(-1, 3) / 255
    linear = np.where(label <= 0.04045, label / 12.92, ((label + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
    color = np.array(COLORS[number]) / 255
    own = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
    contrast = (np.maximum(linear, own) + 0.05) / (np.minimum(linear, own) + 0.05)
    assert contrast.max() >= 4.5
