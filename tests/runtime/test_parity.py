"""Two answers are the same, or it is said how far they are from each other."""

from __future__ import annotations

import numpy as np
import pytest

from squeezedet.runtime.parity import AT_LEAST, FLOAT, INT8, Difference, Tolerance, compare
from squeezedet.runtime.postprocess import RawBoxes, Selection, select


def boxes(count: int, scores: list[float], shift: float = 0.0) -> RawBoxes:
    """Boxes in a row that do not touch."""
    x = np.arange(count, dtype=np.float32) * 50
    xyxy = np.stack([x, x * 0, x + 40, x * 0 + 40], axis=1) + np.float32(shift)
    return RawBoxes(xyxy, np.array(scores, np.float32), np.zeros(count, np.int64))


THREE = boxes(3, [0.9, 0.7, 0.1])


def test_the_same_twice() -> None:
    found = compare(THREE, THREE, Selection())
    assert found == Difference(boxes=6)
    assert found.within(FLOAT)


def test_the_largest_differences() -> None:
    other = boxes(3, [0.9, 0.68, 0.1])
    other.xyxy[2, 3] += 2
    found = compare(THREE, other, Selection())
    assert (found.box_px, found.lost) == (2, 0)
    assert found.score == pytest.approx(0.02, abs=1e-6)
    assert not found.within(FLOAT)
    assert found.within(Tolerance(box_px=2, score=0.03, lost=0))
    assert str(found) == "boxes by at most 2 px, scores by at most 0.02"


def test_one_outlier_in_twenty_is_no_ruined_model() -> None:
    """A network in int8 once moved one score of ten images by 0.51, and lost no AP."""
    scores = [0.9] * 40
    outlier, ruined = [0.39, *scores[1:]], [0.55] * 4 + scores[4:]
    found = compare(boxes(40, scores), boxes(40, outlier), Selection(score=0.3))
    assert found.score == pytest.approx(0.51)
    assert found.within(INT8)
    assert not found.within(FLOAT)
    assert not compare(boxes(40, scores), boxes(40, ruined), Selection(score=0.3)).within(INT8)


def test_a_box_that_is_not_there() -> None:
    for pair in ((THREE, boxes(2, [0.9, 0.7])), (boxes(2, [0.9, 0.7]), THREE)):
        found = compare(*pair, Selection())
        assert (found.boxes, found.lost) == (5, 1)
        assert not found.within(FLOAT)
        assert found.within(Tolerance(box_px=0, score=0, lost=0.2))
        assert "1 of 5 boxes missing" in str(found)


def test_another_class_is_another_box() -> None:
    other = boxes(3, [0.9, 0.7, 0.1])
    other.class_id[0] = 1
    assert compare(THREE, other, Selection()).lost == 2


def test_only_rounding_decides_which_neighbour_stays() -> None:
    """Two boxes of one object with nearly equal scores: NMS keeps another one on each side."""
    near = np.array([[0, 0, 40, 40], [0, 3, 40, 43]], np.float32)
    pair = [
        RawBoxes(near, np.array(s, np.float32), np.zeros(2, np.int64)) for s in ([0.8, 0.8000001], [0.8000001, 0.8])
    ]
    assert [select(raw, Selection()).xyxy[0, 1] for raw in pair] == [3, 0]
    found = compare(*pair, Selection())
    assert (found.boxes, found.box_px, found.lost) == (2, 0, 0)
    assert found.within(FLOAT)


def test_equal_boxes_of_other_scores() -> None:
    """Clipped to the same edge: the partner is the box of the closest score."""
    raw = boxes(4, [0.9, 0.5, 0.6, 0.7])
    raw.xyxy[:] = raw.xyxy[0]
    assert compare(raw, raw, Selection()) == Difference(boxes=2)


def test_boxes_cut_to_nothing_are_not_compared() -> None:
    raw = boxes(3, [0.9, 0.8, 0.7])
    raw.xyxy[1, 2] = raw.xyxy[1, 0]
    assert compare(raw, raw, Selection()) == Difference(boxes=4)


def test_boxes_far_below_the_threshold_do_not_count() -> None:
    many = boxes(20, [0.9] * 8 + [0.1] * 12)
    fewer = boxes(20, [0.9] * 8 + [0.09] * 12)
    assert compare(many, fewer, Selection()) == Difference(boxes=16)


def test_where_nothing_is_reported_the_best_few_are_compared() -> None:
    quiet, moved = boxes(20, [0.1] * 20), boxes(20, [0.1] * 20, shift=1)
    found = compare(quiet, moved, Selection())
    assert (found.boxes, found.box_px) == (2 * AT_LEAST, 1)


def test_what_a_graph_has_chosen() -> None:
    """A box at the threshold may be on either side of it, and nothing below is there."""
    all_boxes = boxes(4, [0.9, 0.8, 0.405, 0.1])
    chosen = boxes(2, [0.9, 0.8])
    assert compare(all_boxes, chosen, Selection(), chosen=True) == Difference(boxes=4)
    assert compare(all_boxes, boxes(1, [0.9]), Selection(), chosen=True).lost == 1


def test_no_boxes_at_all() -> None:
    assert compare(boxes(0, []), boxes(0, []), Selection()) == Difference()
    assert compare(boxes(1, [0.5]), boxes(0, []), Selection()).lost == 1
