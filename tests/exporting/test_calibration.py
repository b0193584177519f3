"""Ranges of activations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from squeezedet.errors import DataError
from squeezedet.exporting.calibration import AT_MOST, choose_ranges, find_region, measure, prepare
from squeezedet.runtime.bundle import Bundle


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
