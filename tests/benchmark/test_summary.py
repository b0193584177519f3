from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.benchmark.turns import Ratio, ratio, summarize

TIMES = st.lists(st.floats(0.1, 1e4), min_size=1, max_size=50)


def test_figures_of_known_measurements() -> None:
    found = summarize([float(n) for n in range(101, 0, -1)])  # 1 to 101: percentile p is 1 + p
    assert (found.n, found.median, found.p5, found.p95) == (101, 51, 6, 96)
    assert (found.mean, found.minimum) == (51, 1)
    between = summarize([10.0, 20.0])
    assert (between.median, between.p95) == (15, pytest.approx(19.5))


@given(TIMES)
def test_the_median_is_the_median(times: list[float]) -> None:
    found = summarize(times)
    assert found.median == pytest.approx(statistics.median(times))
    assert found.minimum <= found.p5 <= found.median <= found.p95 <= max(times)


@given(TIMES, st.floats(0.1, 10))
def test_a_machine_that_slows_down_changes_no_ratio(times: list[float], factor: float) -> None:
    found = ratio([factor * t for t in times], times)
    assert (found.median, found.low, found.high) == pytest.approx((factor,) * 3)


def test_the_ratio_is_that_of_the_rounds_not_of_the_medians() -> None:
    first, mine = [10.0, 20.0, 40.0], [20.0, 10.0, 40.0]
    assert statistics.median(mine) / statistics.median(first) == 1
    found = ratio(mine, first)  # 2, 0.5, 1
    assert (found.median, found.low, found.high) == pytest.approx((1, 0.55, 1.9))
    assert str(Ratio(1.234, 1, 1.5)) == "1.23 [1.00, 1.50]"


def test_no_measurement_is_no_figure() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        summarize([])
    with pytest.raises(ValueError):
        ratio([1.0, 2.0], [1.0])
