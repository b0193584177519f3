"""A graph with coded weights: what is coded comes back, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from squeezedet.coding.graph import CodedGraph, coded_graph, decode_graph, encode_graph, read_index
from squeezedet.coding.tensor import encode_tensor
from squeezedet.errors import ModelError

from .tensors import pruned

WEIGHTS = pruned((4, 6, 3, 3), 0.4, 3)
BIAS = np.array([0.25, -1, 1 / 3], np.float32)
GRAPH = b"".join([b"head ", WEIGHTS.astype("<f2").tobytes(), b" between ", BIAS.tobytes(), b" and the end"])
TINY = encode_graph(GRAPH, {"bias": encode_tensor(BIAS), "weights": encode_tensor(WEIGHTS)})


def test_what_is_coded_comes_back() -> None:
    assert decode_graph(TINY, "x") == GRAPH
    again = coded_graph(TINY.template, read_index(TINY.index()), TINY.coded, "x")
    assert again.tensors == TINY.tensors
    assert decode_graph(again, "x") == GRAPH
    weights, bias = TINY.tensors
    assert (weights.name, weights.dtype, weights.size, weights.at) == ("weights", "f2", 216, 5)
    assert (bias.name, bias.dtype, bias.size, bias.at) == ("bias", "f4", 3, 14)


def test_nothing_coded() -> None:
    for graph in (b"", GRAPH):
        assert decode_graph(encode_graph(graph, {}), "x") == graph


def test_equal_and_contained_tensors() -> None:
    """Each is cut out once, the larger ones first; which of two equal ones does not matter."""
    zeros, more = np.zeros(8, np.float32), np.zeros(40, np.float32)
    graph = b"a" + zeros.tobytes() + b"b" + more.tobytes() + b"c" + zeros.tobytes() + b"d"
    coded = {n: encode_tensor(v) for n, v in (("x", zeros), ("y", zeros), ("z", more))}
    made = encode_graph(graph, coded)
    assert decode_graph(made, "x") == graph
    assert [entry.at for entry in made.tensors] == [1, 2, 3]


def test_numbers_that_the_graph_does_not_hold() -> None:
    for values in (BIAS * 2, np.zeros(0, np.float32)):
        with pytest.raises(ModelError, match="does not hold the numbers of the tensor 'other'"):
            encode_graph(GRAPH, {"other": encode_tensor(values)})


ROWS = read_index(TINY.index())


def rows(place: int, column: int, value: Any) -> list[Any]:
    changed = [list(row) for row in ROWS]
    changed[place][column] = value
    return changed


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([[]] * 10_001, "more than 10000 tensors"),
        (["name"], "damaged"),
        ([[]], "damaged"),
        (rows(0, 0, 5), "without name"),
        (rows(0, 0, "bias"), "two tensors of one name"),
        (rows(0, 1, "f8"), "of another type"),
        (rows(0, 1, ["f4"]), "damaged"),
        (rows(0, 2, -1), "a number that is none"),
        (rows(0, 2, 1e300), "a number that is none"),
        (rows(0, 2, True), "a number that is none"),
        (rows(0, 2, 100_000_000), "a graph of 200000038 bytes"),
        (rows(0, 3, 10), "are declared"),
        (rows(0, 3, 1 << 33), "a number that is none"),
        (rows(0, 4, 15), "out of order"),
        (rows(1, 4, 100), "outside the template"),
    ],
)
def test_an_index_that_does_not_fit(found: list[Any], says: str) -> None:
    with pytest.raises(ModelError, match=f"m.bundle: .*{says}"):
        coded_graph(TINY.template, found, TINY.coded, "m.bundle")


def test_a_tensor_of_another_size() -> None:
    weights, bias = TINY.tensors
    other = CodedGraph(template=TINY.template, tensors=(replace(weights, size=108), bias), coded=TINY.coded)
    with pytest.raises(ModelError, match=r"m\.bundle: .*216 numbers instead of 108"):
        decode_graph(other, "m.bundle")
