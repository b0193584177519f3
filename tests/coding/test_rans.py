"""rANS: near the entropy, exact, and damaged streams noticed or at least survived."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.coding import tensor
from squeezedet.coding.huffman import LANE_SYMBOLS
from squeezedet.errors import ModelError


def coded(symbols: np.ndarray) -> tensor.Coded:
    return tensor.encode_rans(symbols, tensor.quantize(np.bincount(symbols)))


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=300).filter(any))
def test_frequencies_add_up(counts: list[int]) -> None:
    frequencies = tensor.quantize(np.array(counts))
    assert frequencies.sum() == tensor.SCALE
    assert ((frequencies > 0) == (np.array(counts) > 0)).all()


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=60), max_size=4))
def test_streams_come_back(streams: list[list[int]]) -> None:
    arrays = [np.array(stream, np.uint16) for stream in streams]
    for array, decoded in zip(arrays, tensor.decode_rans([coded(a) for a in arrays]), strict=True):
        np.testing.assert_array_equal(array, decoded)


def test_several_lanes_near_the_entropy() -> None:
    rng = np.random.default_rng(0)
    sizes = (40 * LANE_SYMBOLS + 17, 5, LANE_SYMBOLS)
    arrays = [rng.geometric(0.6, n).astype(np.uint16) for n in sizes]
    streams = [coded(a) for a in arrays]
    for array, decoded in zip(arrays, tensor.decode_rans(streams), strict=True):
        np.testing.assert_array_equal(array, decoded)
    share = np.bincount(arrays[0]) / sizes[0]
    entropy = -sizes[0] * share[share > 0] @ np.log2(share[share > 0]) / 8
    size = streams[0].words.nbytes + 3 * len(streams[0].states)
    assert entropy < size < 1.015 * entropy


def test_one_symbol_costs_nothing() -> None:
    stream = coded(np.full(5000, 3, np.uint16))
    assert not stream.words.size
    assert tensor.decode_rans([stream])[0].tolist() == [3] * 5000


def test_damage() -> None:
    symbols = np.random.default_rng(0).integers(0, 30, 5000).astype(np.uint16)
    stream = coded(symbols)
    words = stream.words.copy()
    words[40] ^= 1
    table = stream.frequencies.copy()
    table[0] += 1
    fewer = stream.lane_words.copy()
    fewer[:2] += (1, -1)
    for damaged in (
        replace(stream, words=words),
        replace(stream, states=stream.states ^ 1),
        replace(stream, frequencies=table),
        replace(stream, lane_words=fewer),
        replace(stream, size=4999),
    ):
        with pytest.raises(ModelError, match="damaged"):
            tensor.decode_rans([damaged])
