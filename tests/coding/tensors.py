"""Tensors as they are after pruning and sharing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pruned(shape: tuple[int, ...], density: float, bits: int, spread: float = 0) -> NDArray[np.float32]:
    """Shared values at random places.

    Args:
        shape: (outputs, inputs, ...).
        density: share of the places that are not zero.
        bits: of a code.
        spread: by how much of it the density of the inputs rises from first to last.
    """
    rng = np.random.default_rng(0)
    book = rng.normal(size=2**bits - 1).astype(np.float16).astype(np.float32)
    codes = rng.normal(2 ** (bits - 1), 2**bits / 8, shape).astype(int).clip(0, len(book) - 1)
    odds = density * np.linspace(1 - spread, 1 + spread, shape[1])
    keep = rng.random(shape) < odds.reshape(1, -1, *[1] * (len(shape) - 2))
    return np.where(keep, book[codes], np.float32(0))
