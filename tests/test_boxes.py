from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from squeezedet.boxes import area, clip, cxcywh_to_xyxy, intersection, iou, nms, nms_per_class, xyxy_to_cxcywh

Array = NDArray[np.float64]


def corners(low: int = -20, high: int = 20) -> st.SearchStrategy[Array]:
    """A few boxes on a coarse grid, so that they touch, nest, repeat and may be empty."""
    rows = st.integers(0, 8).flatmap(lambda n: npst.arrays(np.int64, (n, 2, 2), elements=st.integers(low, high)))
    return rows.map(lambda a: np.sort(a, axis=1).reshape(-1, 4).astype(np.float64))


@st.composite
def scored(draw: st.DrawFn) -> tuple[Array, Array, NDArray[np.int64]]:
    """Boxes, scores with ties, and classes."""
    boxes = draw(corners())
    scores = draw(npst.arrays(np.int64, len(boxes), elements=st.integers(0, 5))) / 5
    classes = draw(npst.arrays(np.int64, len(boxes), elements=st.integers(0, 2)))
    return boxes, scores, classes


def iou_of_two(a: Array, b: Array) -> float:
    """By counting: the boxes' corners are whole numbers, so a pixel is in or out."""
    cells_a, cells_b = (
        {(x, y) for x in range(int(x1), int(x2)) for y in range(int(y1), int(y2))} for x1, y1, x2, y2 in (a, b)
    )
    union = cells_a | cells_b
    return len(cells_a & cells_b) / len(union) if union else 0.0


def nms_by_definition(boxes: Array, scores: Array, threshold: float) -> list[int]:
    """Take the best that is left, drop what overlaps it, and again."""
    left = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept = []
    while left:
        best, *rest = left
        kept.append(best)
        left = [i for i in rest if iou_of_two(boxes[best], boxes[i]) <= threshold]
    return kept


@given(corners())
def test_centre_form_and_back(boxes: Array) -> None:
    assert np.array_equal(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)


def test_centre_form_adds_no_pixel() -> None:
    assert xyxy_to_cxcywh(np.array([10.0, 20, 30, 25])).tolist() == [20, 22.5, 20, 5]


def test_conversions_take_any_leading_shape() -> None:
    boxes = np.arange(48.0).reshape(3, 4, 4)
    assert np.array_equal(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)


def test_box_inside_out_has_no_area() -> None:
    assert area(np.array([[5.0, 5, 1, 9], [0, 0, 2, 3]])).tolist() == [0, 6]


@given(corners(), corners())
def test_iou_is_what_counting_says(a: Array, b: Array) -> None:
    expected = [[iou_of_two(x, y) for y in b] for x in a]
    np.testing.assert_allclose(iou(a, b), np.reshape(expected, (len(a), len(b))), rtol=1e-12)


@given(corners(), corners(), st.floats(0.01, 100), st.floats(-1e4, 1e4))
def test_iou_symmetric_bounded_and_without_units(a: Array, b: Array, scale: float, shift: float) -> None:
    found = iou(a, b)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.array_equal(found, iou(b, a).T)
    moved = iou(a * scale + shift, b * scale + shift)
    np.testing.assert_allclose(moved, found, atol=1e-6)


@given(corners())
def test_iou_with_itself(boxes: Array) -> None:
    assert np.array_equal(np.diag(iou(boxes, boxes)), (area(boxes) > 0).astype(float))


@given(corners(), corners())
def test_intersection_is_at_most_either_area(a: Array, b: Array) -> None:
    shared = intersection(a, b)
    assert (shared <= np.minimum(area(a)[:, None], area(b)[None])).all()


@given(corners())
def test_clip_stays_inside_and_is_idempotent(boxes: Array) -> None:
    cut = clip(boxes, 12, 7)
    assert ((cut >= 0) & (cut <= (12, 7, 12, 7))).all()
    assert np.array_equal(clip(cut, 12, 7), cut)
    np.testing.assert_array_equal(area(cut), intersection(boxes, np.array([[0.0, 0, 12, 7]]))[:, 0])


@given(scored(), st.sampled_from([0.0, 0.25, 0.4, 0.5, 1.0]))
def test_nms_is_the_greedy_one(detections: tuple[Array, Array, NDArray[np.int64]], threshold: float) -> None:
    boxes, scores, _ = detections
    assert nms(boxes, scores, threshold).tolist() == nms_by_definition(boxes, scores, threshold)


@given(scored(), st.sampled_from([0.0, 0.4, 1.0]))
def test_nms_per_class(detections: tuple[Array, Array, NDArray[np.int64]], threshold: float) -> None:
    boxes, scores, classes = detections
    expected: list[int] = []
    for c in range(3):
        members = np.flatnonzero(classes == c)
        expected += members[nms_by_definition(boxes[members], scores[members], threshold)].tolist()
    expected.sort(key=lambda i: (-scores[i], i))
    kept = nms_per_class(boxes, scores, classes, threshold)
    assert kept.tolist() == expected
    assert np.issubdtype(kept.dtype, np.integer)


def test_dropped_box_suppresses_nothing() -> None:
    chain = np.array([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    assert nms(chain, np.array([0.9, 0.8, 0.7]), 0.4).tolist() == [0, 2]
