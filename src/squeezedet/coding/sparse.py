"""Relative indices: where a tensor is not zero, as gaps (Deep Compression, section 2).

An entry's gap is the number of zeros before it. A run too long for the gap's bits is bridged
by fillers: entries with the largest gap whose own value is zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError

FILLER = 0
"""The code of a filler."""


def to_gaps(
    positions: NDArray[np.int64], codes: NDArray[np.uint16], bits: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The gaps, and the codes with those of the fillers between them.

    Args:
        positions: (entries,) ascending places in the flattened tensor.
        codes: (entries,) what stands there; none is ``FILLER``.
        bits: of a gap.
    """
    zeros = np.diff(positions, prepend=-1) - 1
    fillers = zeros >> bits
    gaps = np.full(len(positions) + int(fillers.sum()), (1 << bits) - 1, np.uint16)
    all_codes = np.full(len(gaps), FILLER, np.uint16)
    ends = np.cumsum(fillers + 1) - 1
    gaps[ends] = zeros & ((1 << bits) - 1)
    all_codes[ends] = codes
    return gaps, all_codes


def to_positions(gaps: NDArray[np.uint16] | NDArray[np.uint8], size: int) -> NDArray[np.int64]:
    """The places of the entries in a flattened tensor of so many numbers.

    Raises:
        ModelError: they run past it.
    """
    positions: NDArray[np.int64] = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(positions) and positions[-1] >= size:
        raise ModelError(
            f"the gaps are damaged: they run to place {positions[-1]} of {size} in their part"
        )
    return positions
