"""The cells that a peer's outputs belong to, level after level, rows first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def cells(side: int, strides: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The upper left corner of each cell and its stride, in pixels of a square input.

    Args:
        side: of the input; a level has as many cells a side as touch it (416 / 64 gives 7).
        strides: of each level.

    Returns:
        (A, 2) x and y, and (A, 1) strides.
    """
    corners, steps = [], []
    for stride in strides:
        n = -(-side // stride)
        y, x = np.mgrid[:n, :n]
        corners.append(np.stack([x.ravel(), y.ravel()], axis=1) * stride)
        steps.append(np.full((n * n, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(steps).astype(np.float32)


def around(centre: NDArray[np.float32], size: NDArray[np.float32]) -> NDArray[np.float32]:
    """(A, 2) centres and (A, 2) widths and heights to (A, 4) xyxy."""
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1)
