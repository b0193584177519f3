"""Ranges of activations, and how they are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from squeezedet.errors import DataError, UsageError
from squeezedet.exporting.calibration import (
    AT_MOST,
    BINS,
    Histogram,
    choose_ranges,
    divergence,
    find_region,
    measure,
    prepare,
)
from squeezedet.runtime.bundle import Bundle

numbers = arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(-5000, 5000, width=32))


@given(st.lists(numbers, min_size=1, max_size=4))
def test_a_histogram_counts_everything_once_in_its_place(parts: list[np.ndarray]) -> None:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    values = np.concatenate(parts)
    assert histogram.counts.sum() == len(values)
    edges = np.linspace(-histogram.width, histogram.width, 2 * BINS + 1)
    wanted, _ = np.histogram(values.astype(np.float64), edges)
    assert np.array_equal(histogram.counts[: 2 * BINS - 1], wanted[: 2 * BINS - 1])
    low, high = histogram.range("minmax")
    assert low == min(0.0, values.min()) and high == max(0.0, values.max())


@given(numbers, st.sampled_from(["percentile", "entropy"]))
def test_a_cut_range_lies_within_what_was_seen_and_holds_zero(values: np.ndarray, method: str) -> None:
    histogram = Histogram()
    histogram.add(values)
    low, high = histogram.range(method)
    assert min(0.0, values.min()) <= low <= 0 <= high <= max(0.0, values.max())


def test_percentile_leaves_rare_outliers_out() -> None:
    histogram = Histogram()
    histogram.add(np.linspace(0, 10, 100_000, dtype=np.float32))
    histogram.add(np.array([100.0], np.float32))
    low, high = histogram.range("percentile")
    assert low == 0
    assert 9.9 < high < 10.2


def test_entropy_cuts_a_long_thin_tail_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    tailed, even = Histogram(), Histogram()
    tailed.add(np.abs(random.normal(0, 1, 200_000)).astype(np.float32))
    tailed.add(np.array([60.0], np.float32))
    even.add(np.linspace(0, 8, 200_000, dtype=np.float32))
    assert 3 < tailed.range("entropy")[1] < 20
    assert even.range("entropy")[1] > 7.5


def test_divergence_of_what_rounding_keeps_is_zero() -> None:
    counts = np.repeat([4.0, 7.0, 1.0, 9.0], 2)
    assert divergence(counts, 8, 4) == pytest.approx(0, abs=1e-12)
    assert divergence(np.arange(1.0, 9.0), 8, 4) > 0.001


def test_ranges_hold_what_the_network_gives(small: Bundle) -> None:
    network = prepare(small.graph)
    region = find_region(network.graph)
    random = np.random.default_rng(3)
    pixels = [random.integers(0, 256, (1, 64, 96, 3), np.uint8) for _ in range(2)]
    ranges = measure(network, region, pixels)
    assert set(ranges.tensor) == set(region.scale_of)
    assert all(low == 0 < high for low, high in map(ranges.tensor.get, ("pool", "relu2", "pool2")))
    low, high = ranges.channels["head.out"]
    assert low.shape == high.shape == (6,)
    assert ranges.tensor["head.out"] == (min(0, low.min()), max(0, high.max()))
    one = measure(network, region, pixels[:1]).tensor
    assert all(ranges.tensor[name][1] >= one[name][1] for name in one)


def test_unknown_method(small: Bundle) -> None:
    network = prepare(small.graph)
    with pytest.raises(UsageError, match="no calibration method 'mse'"):
        measure(network, find_region(network.graph), [], "mse")


@pytest.mark.parametrize(("count", "says"), [(0, "no image to"), (1, "only 1 image to"), (15, "only 15 images to")])
def test_too_few_images(count: int, says: str) -> None:
    with pytest.raises(DataError, match=f"{says} calibrate int8 on: at least 16"):
        choose_ranges([Path(f"{i}.png") for i in range(count)])


@pytest.mark.parametrize("count", [16, 64, 65, 200, 1000])
def test_of_many_images_some_are_taken_evenly(count: int) -> None:
    images = [Path(str(i)) for i in range(count)]
    chosen = [int(path.name) for path in choose_ranges(images)]
    assert len(chosen) == min(count, AT_MOST)
    assert len(set(chosen)) == len(chosen)
    assert chosen[0] == 0
    assert chosen[-1] >= count - 1 - count / AT_MOST
