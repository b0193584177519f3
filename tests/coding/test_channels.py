"""Groups of kernels by the density of their channels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.coding import tensor
from squeezedet.coding.cursor import Cursor
from squeezedet.errors import ModelError

LEVELS = st.lists(st.integers(0, 15), min_size=1, max_size=12)


@given(LEVELS, LEVELS)
def test_groups_are_the_sums_of_levels(outputs: list[int], inputs: list[int]) -> None:
    levels = tensor.Channels(np.array(outputs, np.uint8), np.array(inputs, np.uint8))
    sums = [o + i for o in outputs for i in inputs]
    ordered = [sums[kernel] for kernel in levels.order()]
    assert ordered == sorted(sums)
    assert levels.group_sizes() == [sums.count(value) for value in sorted(set(sums))]
    again = tensor.read_channels(Cursor(levels.to_bytes(), "levels"), len(outputs), len(inputs))
    assert again.outputs.tolist() == outputs
    assert again.inputs.tolist() == inputs


def test_denser_channels_have_higher_levels() -> None:
    rng = np.random.default_rng(0)
    odds = np.array([0.01, 0.3, 0.3, 0.9])
    nonzero = rng.random((64, 4, 3, 3)) < odds[:, None, None]
    levels = tensor.by_density(nonzero, 0.5)
    assert np.ptp(levels.outputs) <= 3  # chance only
    assert levels.inputs[0] == 0
    assert levels.inputs[1] == levels.inputs[2] < levels.inputs[3] < tensor.LEVELS


def test_levels_that_end_early() -> None:
    with pytest.raises(ModelError, match="2 bytes are declared"):
        tensor.read_channels(Cursor(b"\x11", "levels"), 2, 1)
