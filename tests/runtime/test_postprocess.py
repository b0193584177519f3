"""Top-N, threshold, NMS, and the way back to the original image."""

from __future__ import annotations

import numpy as np
import pytest

from squeezedet.runtime.postprocess import RawBoxes, Selection, report, select, to_original


def raw(rows: list[tuple[float, float, float, float, float, int]]) -> RawBoxes:
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    return RawBoxes(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def test_select_keeps_the_best_and_suppresses_within_a_class() -> None:
    found = select(
        raw(
            [
                (0, 0, 10, 10, 0.5, 0),
                (1, 0, 11, 10, 0.9, 0),  # suppresses the first
                (1, 0, 11, 10, 0.8, 1),  # another class stays
                (50, 50, 60, 60, 0.39, 0),  # below the threshold
            ]
        ),
        Selection(),
    )
    assert found.score.tolist() == pytest.approx([0.9, 0.8])
    assert found.class_id.tolist() == [0, 1]


def test_score_zero_keeps_all_of_the_top_n() -> None:
    rows = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0, 0.001 * i, 0) for i in range(100)]
    found = select(raw(rows), Selection(score=0.0))
    assert len(found.score) == 64
    assert found.score.min() == pytest.approx(0.036)


def test_candidates_enter_nms_and_top_n_are_reported() -> None:
    """Ten objects of twenty boxes each: 64 candidates are the boxes of four of them."""
    rows = [
        (100.0 * i, 0.0, 100.0 * i + 50, 50.0, 0.9 - 0.01 * i - 0.0001 * j, 0) for i in range(10) for j in range(20)
    ]
    assert len(select(raw(rows), Selection(candidates=64)).score) == 4
    assert len(select(raw(rows), Selection()).score) == 10
    best = select(raw(rows), Selection(top_n=3)).score
    assert best.tolist() == pytest.approx([0.9, 0.89, 0.88])


def test_each_class_has_its_own_iou() -> None:
    rows = [(0, 0, 10, 10, 0.9, c) for c in (0, 1)] + [(0, 0, 10, 5, 0.8, c) for c in (0, 1)]  # IoU 0.5
    found = select(raw(rows), Selection(nms_iou=(0.6, 0.4)))
    assert found.class_id.tolist() == [0, 1, 0]


def test_boxes_vote() -> None:
    """The mean weighted by score times IoU, also of boxes below the threshold, only within a class."""
    rows = [(0, 0, 10, 10, 0.8, 0), (0, 0, 10, 8, 0.3, 0), (0, 0, 10, 8, 0.7, 1), (40, 0, 50, 10, 0.5, 0)]
    found = select(raw(rows), Selection(vote_iou=(0.6, 1.0)))
    assert found.score.tolist() == pytest.approx([0.8, 0.7, 0.5])
    lower = (0.8 * 10 + 0.3 * 0.8 * 8) / (0.8 + 0.3 * 0.8)
    assert found.xyxy.tolist() == [pytest.approx(b) for b in ([0, 0, 10, lower], [0, 0, 10, 8], [40, 0, 50, 10])]
    alone = select(raw(rows), Selection(vote_iou=(0.6, 1.0), score=0.75))
    assert alone.xyxy[0].tolist() == pytest.approx([0, 0, 10, lower])


def test_boxes_that_move_onto_one_another_are_one() -> None:
    """Two boxes of IoU 0.54 and a voter between them that overlaps both."""
    rows = [(0, 0, 10, 10, 0.8, 0), (3, 0, 13, 10, 0.7, 0), (1.5, 0, 11.5, 10, 0.5, 0)]
    assert len(select(raw(rows), Selection(nms_iou=0.55)).score) == 2
    moved = select(raw(rows), Selection(nms_iou=0.55, vote_iou=0.5))
    assert moved.score.tolist() == pytest.approx([0.8])


def test_a_part_of_another_object() -> None:
    """A rider inside a cyclist's box, of a score of 0.75, loses three quarters; one beside it, or a whole, nothing."""
    rider = (2, 0, 8, 8, 0.8, 0)
    rows = [rider, (40, 0, 46, 8, 0.7, 0), (0, 0, 10, 10, 0.75, 1), (41, 1, 45, 7, 0.5, 1)]
    found = select(raw(rows), Selection(part_of=(1, -1), score=0.1))
    assert found.class_id.tolist() == [1, 0, 1, 0]
    assert found.score.tolist() == pytest.approx([0.75, 0.7, 0.5, 0.2])
    assert select(raw(rows), Selection(part_of=(1, -1), score=0.3)).score.tolist() == pytest.approx([0.75, 0.7, 0.5])
    faint = select(raw([rider, (0, 0, 10, 10, 0.5, 1)]), Selection(part_of=(1, -1), score=0.6))
    assert not len(faint.score), "a whole below the threshold counts as well"


@pytest.mark.parametrize("wrong", [(0,), (2, -1), (-2, -1), (True, -1), (1.0, -1)])
def test_parts_of_no_class(wrong: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="part_of must hold the id of another class"):
        Selection(part_of=wrong)


@pytest.mark.parametrize("wrong", [{"nms_iou": (0.4, 2)}, {"vote_iou": ()}, {"score": (0.4, 0.4)}, {"nms_iou": "0.4"}])
def test_a_selection_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be a number of 0 to 1"):
        Selection(**wrong)


def test_nothing_in_nothing_out() -> None:
    found = select(raw([]), Selection())
    assert found.xyxy.shape == (0, 4)


def test_to_original_scales_and_clips() -> None:
    xyxy = np.array([[0, 0, 1248, 384], [624, 192, 2000, 400]], np.float32)
    back = to_original(xyxy, (1248, 384), (1242, 375))
    assert back.tolist() == [[0, 0, 1242, 375], [621, 187.5, 1242, 375]]
    assert back.dtype == np.float32


def test_report_selects_scales_and_drops_what_is_outside() -> None:
    found = report(
        raw(
            [
                (10, 10, 20, 30, 0.5, 1),
                (110, 10, 120, 30, 0.9, 0),  # beside the image: nothing is left of it
                (90, 10, 120, 30, 0.8, 0),
                (50, 50, 60, 60, 0.1, 0),  # below the threshold
            ]
        ),
        Selection(),
        content=(100, 100),
        original=(200, 50),
    )
    assert found.xyxy.tolist() == [[180, 5, 200, 15], [20, 5, 40, 15]]
    assert found.score.tolist() == pytest.approx([0.8, 0.5])
    assert found.class_id.tolist() == [0, 1]


@pytest.mark.parametrize(
    "wrong",
    [{"top_n": 0}, {"top_n": 5000}, {"candidates": 0}, {"top_n": 64.0}, {"score": 1.1}, {"nms_iou": float("nan")}],
)
def test_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        Selection(**wrong)  # type: ignore[arg-type]
