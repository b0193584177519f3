"""A graph without some of its numbers, and how they come back.

Where the numbers of a tensor stand in the file is found by their bytes: whatever holds the same
bytes gives the same file again, so no knowledge of the file's format is needed. Large tensors
are looked for first, so that one of few numbers cannot be taken for a part of them.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from squeezedet.coding import tensor
from squeezedet.errors import ModelError


class Place(NamedTuple):
    """Where a tensor was cut out.

    Attributes:
        name: of the tensor.
        dtype: "f4" or "f2".
        size: numbers in it.
        at: how many bytes of the template come before it.
    """

    name: str
    dtype: str
    size: int
    at: int


class _Cut(NamedTuple):
    start: int
    stop: int
    name: str
    dtype: str
    size: int


def cut(graph: bytes, coded: Mapping[str, bytes]) -> tuple[bytes, list[Place]]:
    """The graph without the numbers of the coded tensors.

    Args:
        graph: bytes of any format that stores numbers little endian.
        coded: name -> encoded tensor.

    Returns:
        The rest of the graph, and what was cut out of it, in its order.

    Raises:
        ModelError: the graph does not hold the numbers of a tensor.
    """
    sizes = {name: tensor.describe(encoded).size for name, encoded in coded.items()}
    cuts: list[_Cut] = []
    for name in sorted(coded, key=lambda name: (-sizes[name], name)):
        bisect.insort(cuts, _find(graph, name, coded[name], sizes[name], cuts))
    pieces, places = [], []
    end = length = 0
    for part in cuts:
        pieces.append(graph[end : part.start])
        length += part.start - end
        end = part.stop
        places.append(Place(part.name, part.dtype, part.size, length))
    return b"".join([*pieces, graph[end:]]), places


def _find(graph: bytes, name: str, encoded: bytes, size: int, cuts: Sequence[_Cut]) -> _Cut:
    """The first place of a tensor's bytes that touches no other cut."""
    numbers = tensor.decode(encoded, (size,))
    forms = {"f4": numbers.astype("<f4").tobytes()}
    with np.errstate(all="ignore"):
        half = numbers.astype("<f2")
    if np.array_equal(half, numbers, equal_nan=True):
        forms["f2"] = half.tobytes()
    for dtype, content in forms.items():
        start = graph.find(content) if size else -1
        while start >= 0:
            stop = start + len(content)
            taken = next((c for c in cuts if c.start < stop and start < c.stop), None)
            if taken is None:
                return _Cut(start, stop, name, dtype, size)
            start = graph.find(content, taken.stop)
    raise ModelError(
        f"the graph does not hold the numbers of the tensor {name!r}: encode it as it is exported"
    )


def join(template: bytes, places: Sequence[int], parts: Sequence[bytes]) -> bytes:
    """The graph again: each part after so many bytes of the template, in order."""
    pieces, end = [], 0
    for at, part in zip(places, parts, strict=True):
        pieces += [template[end:at], part]
        end = at
    return b"".join([*pieces, template[end:]])
