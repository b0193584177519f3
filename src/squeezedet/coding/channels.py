"""Kernels of one density together: a table for each group codes them better than one for all.

Pruning leaves the channels of a layer unequally dense. A kernel from input i to output o has
about the odds of both: each channel gets a level (its log-odds, in steps), and the kernels with
one sum of levels are a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding.cursor import Cursor

LEVELS = 16
"""So that a level fits four bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """The levels of a tensor's channels.

    Attributes:
        outputs: (rows,) levels, below ``LEVELS``.
        inputs: (columns,) levels.
    """

    outputs: NDArray[np.uint8]
    inputs: NDArray[np.uint8]

    def order(self) -> NDArray[np.int64]:
        """(rows * columns,) the kernels, group after group."""
        return np.argsort((self.outputs[:, None] + self.inputs).ravel(), kind="stable")

    def group_sizes(self) -> list[int]:
        """How many kernels each group has, without those that have none."""
        counts = np.convolve(np.bincount(self.outputs), np.bincount(self.inputs))
        return [n for n in counts.tolist() if n]

    def to_bytes(self) -> bytes:
        """What ``read`` reads, two levels a byte, the first in the lower half."""
        levels = np.concatenate([self.outputs, self.inputs])
        levels = np.concatenate([levels, np.zeros(len(levels) % 2, np.uint8)])
        return bytes((levels[::2] | levels[1::2] << 4).tobytes())


def by_density(nonzero: NDArray[np.bool_], step: float) -> Channels:
    """Levels from the densities of channels.

    Args:
        nonzero: (outputs, inputs, ...).
        step: of the log-odds, from level to level.
    """
    levels = []
    for axis in (0, 1):
        across = tuple(a for a in range(nonzero.ndim) if a != axis)
        count = nonzero.size / nonzero.shape[axis]
        share = (nonzero.sum(across) + 0.5) / (count + 1)
        odds = np.log(share / (1 - share))
        level = np.rint((odds - np.median(odds)) / step)
        level = np.clip(level, *np.rint((-2.5 / step, 2.5 / step)))  # the rest is one group
        levels.append((level - level.min()).clip(max=LEVELS - 1).astype(np.uint8))
    return Channels(*levels)


def read(cursor: Cursor, outputs: int, inputs: int) -> Channels:
    """The levels at the cursor.

    Raises:
        ModelError: the bytes end early, or a half that is not used is not zero.
    """
    count = outputs + inputs
    pairs = cursor.array(np.dtype(np.uint8), (count + 1) // 2)
    levels = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()
    if levels[count:].any():
        raise cursor.error("something follows the levels of the channels")
    return Channels(levels[:outputs], levels[outputs:count])
