"""What any engine gives is boxes, or an error; never an empty result in place of one."""

from __future__ import annotations

import numpy as np
import pytest

from squeezedet.errors import ModelError
from squeezedet.runtime.engines import first_line, raw_boxes

BOXES = np.array([[[1, 2, 30, 20], [5, 6, 7, 8]]], np.float32)
SCORES = np.array([[0.9, 0.1]], np.float32)
IDS = np.array([[2, 99]], np.int64)


def test_boxes_pass_without_a_copy() -> None:
    raw = raw_boxes(BOXES, SCORES, IDS)
    assert np.shares_memory(raw.xyxy, BOXES)
    assert raw.score.tolist() == SCORES[0].tolist()
    assert raw.class_id.tolist() == [2, 99]


def test_no_boxes_are_no_error() -> None:
    raw = raw_boxes(BOXES[:, :0], SCORES[:, :0], IDS[:, :0])
    assert raw.xyxy.shape == (0, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["boxes", "scores"])
def test_what_is_not_finite_is_an_error(value: float, where: str) -> None:
    boxes, scores = BOXES.copy(), SCORES.copy()
    (boxes if where == "boxes" else scores)[0, 1] = value
    with pytest.raises(ModelError, match="NaN or infinite"):
        raw_boxes(boxes, scores, IDS)


def test_opposite_infinities_do_not_hide_each_other() -> None:
    boxes = BOXES.copy()
    boxes[0, 0, 0], boxes[0, 1, 1] = np.inf, -np.inf
    with pytest.raises(ModelError, match="NaN or infinite"):
        raw_boxes(boxes, SCORES, IDS)


def test_large_numbers_whose_sum_is_infinite_pass() -> None:
    boxes = np.full((1, 2, 4), 3e38, np.float32)
    assert raw_boxes(boxes, SCORES, IDS).xyxy.max() == np.float32(3e38)


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_other_types(kind: type) -> None:
    with pytest.raises(ModelError, match="float32, float32, int64"):
        raw_boxes(BOXES.astype(kind), SCORES, IDS)


def test_the_line_that_says_something() -> None:
    openvino = "Exception from src/core.cpp:105:\nException from src/a.cpp:8:\nweights are short\n"
    assert first_line(RuntimeError(openvino)) == "weights are short"
    assert first_line(ValueError("")) == "ValueError"
