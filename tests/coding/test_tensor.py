"""One tensor: every form gives the same bits back, and the smallest is taken."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from squeezedet.coding import tensor
from squeezedet.errors import ModelError, UsageError

from .tensors import pruned

SPECIAL = np.array(
    [0, -0.0, 1e-45, -1e-45, 1e-39, 6e-8, 65504, 65520, 3e38, np.inf, -np.inf, np.nan, 1 / 3], np.float32
)


def same(a: NDArray[np.floating], b: NDArray[np.floating]) -> bool:
    """Shape, kind and every bit."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
        elements=st.floats(width=32) | st.sampled_from(SPECIAL.tolist()),
    )
)
def test_any_tensor_comes_back(values: NDArray[np.float32]) -> None:
    assert same(tensor.decode_tensor(tensor.encode_tensor(values), values.shape), values)


@settings(max_examples=40)
@given(
    shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=24),
    book=hnp.arrays(np.uint32, st.integers(1, 70)),
    density=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_shared_values_come_back(shape: tuple[int, ...], book: NDArray[np.uint32], density: float, seed: int) -> None:
    """Any bits at all are values here: signalling NaN, denormals, negative zero."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(shape) < density, rng.choice(book, shape), np.uint32(0))
    values = values.astype(np.uint32).view(np.float32)
    assert same(tensor.decode_tensor(tensor.encode_tensor(values), shape), values)


@pytest.mark.parametrize(
    ("values", "form", "limit"),
    [
        (np.zeros(0), "raw", 4),
        (np.ones(()), "raw", 8),
        (np.zeros((100, 100, 3, 3)), "dense", 20),
        (np.full((100, 100), 1 / 3), "dense", 20),
        (np.full((100, 100), -0.0), "dense", 20),
        (np.arange(2000) / 3, "raw", 8010),
        (np.arange(2000) / 4, "raw", 4010),
        (np.tile(np.arange(600), 9), "dense", 8000),
        (np.eye(300), "sparse", 340),
        (pruned((64, 16), 0.9, 3), "dense", 400),
    ],
)
def test_forms(values: NDArray[np.float64], form: str, limit: int) -> None:
    values = values.astype(np.float32)
    content = tensor.encode_tensor(values)
    summary = tensor.describe(content)
    assert (summary.form, summary.size) == (form, values.size)
    assert summary.size_bytes == len(content) <= limit
    assert same(tensor.decode_tensor(content, values.shape), values)


def test_as_float16() -> None:
    values = pruned((8, 60, 3, 3), 0.3, 5)
    found = tensor.decode_tensor(tensor.encode_tensor(values), values.shape, np.float16)
    assert same(found, values.astype(np.float16))


def test_no_other_numbers() -> None:
    with pytest.raises(UsageError, match="float64"):
        tensor.encode_tensor(np.zeros(3))  # type: ignore[arg-type]
    content = tensor.encode_tensor(np.full(100, 1 / 3, np.float32))
    with pytest.raises(ModelError, match="no float16"):
        tensor.decode_tensor(content, (100,), np.float16)
    with pytest.raises(ModelError, match="100 numbers instead of 99"):
        tensor.decode_tensor(content, (99,))


def test_what_is_not_packed_does_not_drift() -> None:
    raw = tensor.encode_tensor(np.array([1, -2, 0.5], np.float32))
    assert raw.hex() == "000301003c00c00038"
    assert tensor.encode_tensor(np.full(300, 0.25, np.float32)).hex() == "03ac0201010034"


def test_a_sparse_tensor_is_smaller_than_a_dense_one() -> None:
    values = pruned((16, 64, 3, 3), 0.02, 5) + np.float32(0)  # no -0: zero is one code
    summary = tensor.describe(tensor.encode_tensor(values))
    assert summary.form == "sparse"
    assert summary.size_bytes < values.size / 12
    assert same(tensor.decode_tensor(tensor.encode_tensor(values), values.shape), values)


PAIR = "03 05 02 01 0000003c"
"""The head of five numbers, each 0 or 1."""


def packed(*octets: int) -> str:
    return zlib.compress(bytes(octets)).hex()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "1 bytes are declared at byte 0 where 0 are left"),
        ("00", "1 bytes are declared"),
        ("04 05", "form 4"),
        ("00 ffffffff7f 00", "numbers instead of 5"),
        ("00 ffffffffff7f 00", "does not end"),
        ("00 8000 00", "superfluous"),
        ("00 05 02 00", "unknown kind"),
        ("00 05 01 003c003c003c003c003c 00", "1 bytes too many"),
        ("03 05 00 01", "0 values"),
        ("03 05 8109 01", "1153 values"),
        (f"{PAIR} 02 05", "layout 2"),
        (f"{PAIR} 00 00112233", "cannot be inflated"),
        (f"{PAIR} 00 {packed(0, 1, 0, 1)}", "has not the 5 bytes"),
        (f"{PAIR} 00 {packed(*[0] * 5000)}", "has not the 5 bytes"),
        (f"{PAIR} 00 {packed(0, 1, 0, 1, 0)[:-4]}", "has not the 5 bytes"),
        (f"{PAIR} 00 {packed(0, 1, 0, 1, 2)}", "code 2 of 2 values"),
        (f"{PAIR} 01 06", "6 entries in 5 places"),
        (f"03 05 02 01 0038003c 01 01 {packed(1)} {packed(1)}", "1 entries in 5 places"),  # there is no zero
        (f"{PAIR} 01 02 {packed(1, 1)} {packed(2, 3)}", "run to place 6 of 5"),
        (f"{PAIR} 01 02 {packed(1, 1)} {packed(2)}", "has not the 2 bytes"),
        (f"{PAIR} 01 02 {packed(1, 1)} {packed(2, 0)} 00", "1 bytes too many"),
    ],
)
def test_bad_bytes(content: str, sentence: str) -> None:
    with pytest.raises(ModelError, match="damaged") as caught:
        tensor.decode_tensor(bytes.fromhex(content), (5,))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------ gaps


def test_a_filler_bridges_a_long_gap() -> None:
    """Figure 2 of the paper, with gaps of a byte: 255 zeros and the filler's own place, then 44 zeros."""
    gaps, codes = tensor.to_gaps(np.array([1, 4, 305]), np.array([7, 8, 9], np.uint16))
    assert gaps.tolist() == [1, 2, 255, 44]
    assert codes.tolist() == [7, 8, tensor.FILLER, 9]


@given(st.sets(st.integers(0, 4000), max_size=60))
def test_positions_come_back(places: set[int]) -> None:
    positions = np.array(sorted(places), np.int64)
    gaps, codes = tensor.to_gaps(positions, np.ones(len(positions), np.uint16))
    found = tensor.to_positions(gaps, 4001)
    assert found[codes != tensor.FILLER].tolist() == sorted(places)
    assert (gaps[codes == tensor.FILLER] == tensor.LONGEST_GAP).all()


def test_gaps_that_run_past_the_end() -> None:
    gaps = np.array([3, 15, 0], np.uint16)
    assert tensor.to_positions(gaps, 21).tolist() == [3, 19, 20]
    with pytest.raises(ModelError, match="place 20 of 20"):
        tensor.to_positions(gaps, 20)
