"""Huffman codes: as short as can be, canonical, and refused where they are no prefix code."""

from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.coding import huffman
from squeezedet.coding.huffman import LANE_SYMBOLS
from squeezedet.errors import ModelError

COUNTS = st.lists(st.integers(0, 5000), min_size=1, max_size=40).filter(any)


def optimum(counts: list[int]) -> int:
    """Bits of Huffman's own construction, without a limit."""
    heap = [c for c in counts if c]
    heapq.heapify(heap)
    if len(heap) == 1:
        return heap[0]
    bits = 0
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        bits += pair
        heapq.heappush(heap, pair)
    return bits


@given(COUNTS)
def test_lengths_are_optimal(counts: list[int]) -> None:
    lengths = huffman.code_lengths(np.array(counts), max_length=40)
    assert int(np.array(counts) @ lengths) == optimum(counts)
    assert ((lengths > 0) == (np.array(counts) > 0)).all()


@given(COUNTS, st.integers(6, 9))
def test_limited_lengths_form_a_prefix_code(counts: list[int], limit: int) -> None:
    lengths = huffman.code_lengths(np.array(counts), limit)
    assert lengths.max() <= limit
    codes = huffman.canonical_codes(lengths)
    texts = sorted(f"{c:0{n}b}" for c, n in zip(codes.tolist(), lengths.tolist(), strict=True) if n)
    assert not any(b.startswith(a) for a, b in itertools.pairwise(texts))


def test_a_limit_costs_no_more_than_it_must() -> None:
    """Fibonacci's counts want lengths up to 7; with 4 bits for 8 symbols there are few codes."""
    counts = np.array([1, 1, 2, 3, 5, 8, 13, 21])
    assert sorted(huffman.code_lengths(counts).tolist()) == [1, 2, 3, 4, 5, 6, 7, 7]
    full = [c for c in itertools.product(range(1, 5), repeat=8) if sum(2.0**-n for n in c) <= 1]
    best = min(int(counts @ np.array(c)) for c in full)
    assert int(counts @ huffman.code_lengths(counts, 4)) == best


def test_more_symbols_than_codes() -> None:
    with pytest.raises(ValueError, match="more than 2 bits"):
        huffman.code_lengths(np.ones(5, np.int64), 2)


def test_canonical_codes_of_rfc_1951() -> None:
    """The example of section 3.2.2: ABCDEFGH with lengths 3, 3, 3, 3, 3, 2, 4, 4."""
    codes = huffman.canonical_codes(np.array([3, 3, 3, 3, 3, 2, 4, 4]))
    assert codes.tolist() == [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]


@pytest.mark.parametrize("lengths", [[], [0, 0], [1, 1, 1], [1, 2, 2, 2], [2, 2], [3], [0, 2], [1, 2]])
def test_tables_that_are_none(lengths: list[int]) -> None:
    with pytest.raises(ModelError, match="no full prefix code"):
        huffman.canonical_codes(np.array(lengths, np.int64))


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=60), max_size=4))
def test_streams_come_back(streams: list[list[int]]) -> None:
    arrays = [np.array(stream, np.uint16) for stream in streams]
    coded = [huffman.encode(a, huffman.code_lengths(np.bincount(a))) for a in arrays]
    for array, decoded in zip(arrays, huffman.decode(coded), strict=True):
        np.testing.assert_array_equal(array, decoded)


def test_several_lanes() -> None:
    rng = np.random.default_rng(0)
    sizes = (3 * LANE_SYMBOLS + 17, 5, LANE_SYMBOLS)
    arrays = [rng.geometric(0.3, n).clip(max=12).astype(np.uint16) for n in sizes]
    coded = [huffman.encode(a, huffman.code_lengths(np.bincount(a))) for a in arrays]
    assert [len(c.lane_bytes) for c in coded] == [4, 1, 1]
    for array, decoded in zip(arrays, huffman.decode(coded), strict=True):
        np.testing.assert_array_equal(array, decoded)
    bits = sum(int(c.lengths @ np.bincount(a)) for c, a in zip(coded, arrays, strict=True))
    assert bits <= 8 * sum(len(c.content) for c in coded) < bits + 8 * 6


def test_a_lane_must_end_with_its_bytes() -> None:
    symbols = np.array([0, 1, 2, 3] * 9, np.uint16)
    coded = huffman.encode(symbols, np.full(4, 2))
    longer = huffman.Coded(36, coded.lengths, coded.lane_bytes + 1, coded.content + b"\0")
    shorter = huffman.Coded(36, coded.lengths, coded.lane_bytes - 1, coded.content[:-1])
    for damaged in (longer, shorter):
        with pytest.raises(ModelError, match="do not end where"):
            huffman.decode([damaged])
