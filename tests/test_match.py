from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from squeezedet.tracking import match

OVERLAPS = st.tuples(st.integers(0, 6), st.integers(0, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(0, 1))
)


def test_largest_first() -> None:
    rows, columns = match(np.array([[0.9, 0.8], [0.7, 0.1]]), 0.2)
    assert (rows.tolist(), columns.tolist()) == ([0], [0])
    rows, columns = match(np.array([[0.6, 0.8], [0.7, 0.1]]), 0.2)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


@given(OVERLAPS, st.floats(0.01, 1))
def test_pairs_are_single_good_and_all_that_are_possible(overlap: np.ndarray, least: float) -> None:
    rows, columns = match(overlap, least)
    assert len(set(rows.tolist())) == len(rows) == len(columns) == len(set(columns.tolist()))
    assert (overlap[rows, columns] >= least).all()
    rest = np.delete(np.delete(overlap, rows, axis=0), columns, axis=1)
    assert not (rest >= least).any()
