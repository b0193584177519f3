"""Gaps: the layout of Deep Compression, section 2 and figure 2."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.coding import tensor
from squeezedet.errors import ModelError


def test_a_filler_bridges_a_long_gap() -> None:
    """Figure 2 of the paper, with gaps of a byte: 255 zeros and the filler's own place, then 44 zeros."""
    gaps, codes = tensor.to_gaps(np.array([1, 4, 305]), np.array([7, 8, 9], np.uint16))
    assert gaps.tolist() == [1, 2, 255, 44]
    assert codes.tolist() == [7, 8, tensor.FILLER, 9]


@given(st.sets(st.integers(0, 4000), max_size=60))
def test_positions_come_back(places: set[int]) -> None:
    positions = np.array(sorted(places), np.int64)
    gaps, codes = tensor.to_gaps(positions, np.ones(len(positions), np.uint16))
    found = tensor.to_positions(gaps, 4001)
    assert found[codes != tensor.FILLER].tolist() == sorted(places)
    assert (gaps[codes == tensor.FILLER] == tensor.LONGEST_GAP).all()


def test_gaps_that_run_past_the_end() -> None:
    gaps = np.array([3, 15, 0], np.uint16)
    assert tensor.to_positions(gaps, 21).tolist() == [3, 19, 20]
    with pytest.raises(ModelError, match="place 20 of 20"):
        tensor.to_positions(gaps, 20)
