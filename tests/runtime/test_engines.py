"""What any engine gives is boxes, or an error; never an empty result in place of one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.errors import ModelError
from squeezedet.runtime import bundle
from squeezedet.runtime.engines import ConvDetDecoder, first_line, raw_boxes

from ..conftest import SLIM

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


ANCHORS = ((30.0, 20.0), (100.0, 50.0))


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 3.0, 200.0]))
def test_every_number(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    rows, columns, classes = 2, 3, 3
    raw = random.normal(0, scale, (2 * (classes + 5), rows, columns)).astype(np.float32)
    boxes, scores, ids = ConvDetDecoder(classes, ANCHORS)(raw)
    assert (boxes.dtype, scores.dtype, ids.dtype) == (np.float32, np.float32, np.int64)
    a = int(random.integers(rows * columns * 2))
    (row, column), k = divmod(a // 2, columns), a % 2
    cell = [float(value) for value in raw[:, row, column]]
    logits = cell[k * classes : (k + 1) * classes]
    confidence = cell[2 * classes + k]
    dx, dy, dw, dh = cell[2 * (classes + 1) + 4 * k :][:4]
    top = max(logits)
    probability = 1 / sum(math.exp(value - top) for value in logits)
    sigmoid = 1 / (1 + math.exp(-confidence)) if confidence > -700 else 0
    assert scores[0, a] == pytest.approx(probability * sigmoid, rel=1e-4, abs=1e-6)
    assert ids[0, a] == logits.index(top)

    def grown(d: float) -> float:
        return math.e * d if d > 1 else math.exp(d)

    width, height = ANCHORS[k]
    x, y = 16 * column + 8 + width * dx, 16 * row + 8 + height * dy
    w, h = width * grown(dw), height * grown(dh)
    wanted = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    limits = [16 * columns, 16 * rows] * 2
    wanted = [min(max(v, 0), limit) for v, limit in zip(wanted, limits, strict=True)]
    assert boxes[0, a].tolist() == pytest.approx(wanted, abs=0.01 * scale)


def test_large_logits_give_numbers() -> None:
    raw = np.full((16, 1, 1), -1000, np.float32)
    raw[0] = 1000
    boxes, scores, _ = ConvDetDecoder(3, ANCHORS)(raw)
    assert np.isfinite(boxes).all()
    assert scores.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"anchors": []},
        {"anchors": [[1, 2, 3]]},
        {"anchors": [[1, "x"]]},
        {"anchors": [[1, -2]]},
        {"anchors": [[1, float("nan")]]},
        {"anchors": [[1, 10**400]]},
        {"anchors": [[1, 1]] * 1001},
        {"anchors": None},
        {"geometry": "paper"},
        {"detector": "tiny-ssd"},
    ],
)
def test_cards_that_describe_no_convdet(wrong: dict[str, Any]) -> None:
    card = bundle.read_card(SLIM)
    assert len(ConvDetDecoder.of(card).anchors) == 9
    config = {**card.training["config"], **wrong}
    with pytest.raises(ModelError, match="no ConvDet"):
        ConvDetDecoder.of(replace(card, training={"config": config}))
    with pytest.raises(ModelError, match="no ConvDet"):
        ConvDetDecoder.of(replace(card, training={}))


def test_a_map_of_other_channels() -> None:
    with pytest.raises(ModelError, match="need 16 channels"):
        ConvDetDecoder(3, ANCHORS)(np.zeros((15, 2, 2), np.float32))
