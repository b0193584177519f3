"""Top-N, threshold, NMS, and the way back to the original image."""

from __future__ import annotations

import numpy as np
import pytest

from squeezedet.runtime.postprocess import RawBoxes, Selection, select, to_original


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


def test_nothing_in_nothing_out() -> None:
    found = select(raw([]), Selection())
    assert found.xyxy.shape == (0, 4)


def test_to_original_scales_and_clips() -> None:
    xyxy = np.array([[0, 0, 1248, 384], [624, 192, 2000, 400]], np.float32)
    back = to_original(xyxy, (1248, 384), (1242, 375))
    assert back.tolist() == [[0, 0, 1242, 375], [621, 187.5, 1242, 375]]
    assert back.dtype == np.float32
