"""Whether the tensors of a file are those that a network wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError

MAX_NAMED = 3


def check_fit(
    wanted: Mapping[str, tuple[int, ...]],
    given: Mapping[str, NDArray[Any]],
    path: Path,
    left_over: Sequence[str] = (),
) -> None:
    """Compare names and shapes, in the network's order, and look at every number.

    Args:
        wanted: name and shape of each tensor of the network.
        given: the tensors of the file.
        path: of the file, for the errors.
        left_over: layers (``conv10`` of ``conv10.weight``) that the network has no place for and
            that the file may have.

    Raises:
        ModelError: a tensor is missing, has another shape, holds what is no number, or has no
            place in the network. The first one is named, with what was expected.
    """
    for name, shape in wanted.items():
        expected = f"{name} of shape {_shown(shape)}"
        if name not in given:
            raise ModelError(f"{path}: expected {expected}, but the file has only {_named(given)}")
        if given[name].shape != shape:
            raise ModelError(
                f"{path}: expected {expected}, but in the file it is {_shown(given[name].shape)}"
            )
        if not np.isfinite(given[name]).all():
            raise ModelError(f"{path}: {name} holds infinity, or what is no number")
    places = (*wanted, *(n for n in given if n.rpartition(".")[0] in left_over))
    extra = [name for name in given if name not in places]
    if extra:
        raise ModelError(f"{path}: the network has no place for {_named(extra)}")


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"


def _named(names: Mapping[str, Any] | Sequence[str]) -> str:
    """The first few names; a file may hold thousands, and long ones."""
    first = ", ".join(repr(name)[:80] for name in list(names)[:MAX_NAMED])
    rest = len(names) - MAX_NAMED
    return f"{first} and {rest} more" if rest > 0 else first or "nothing"
