"""One tensor: every form gives the same bits back, and the smallest is taken."""

from __future__ import annotations

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
        (np.zeros(0), "raw float16", 4),
        (np.ones(()), "raw float16", 8),
        (np.zeros((100, 100, 3, 3)), "dense", 20),
        (np.full((100, 100), 1 / 3), "dense", 20),
        (np.full((100, 100), -0.0), "dense", 20),
        (np.arange(2000) / 3, "raw float32", 8010),
        (np.arange(2000) / 4, "raw float16", 4010),
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


def test_many_at_once_are_as_one_by_one() -> None:
    tensors = [pruned((8, 60, 3, 3), d, b, spread=0.9) for b in (2, 5, 8) for d in (0.01, 0.3, 1)]
    tensors += [np.zeros(0, np.float32), np.zeros(7, np.float32)]
    kinds = [np.float32, np.float16] * 6
    contents = [tensor.encode_tensor(t) for t in tensors]
    found = tensor.decode_all(contents, [t.size for t in tensors], kinds[: len(tensors)])
    for values, kind, decoded in zip(tensors, kinds, found, strict=False):
        assert same(decoded, values.ravel().astype(kind))


def test_no_other_numbers() -> None:
    with pytest.raises(UsageError, match="float64"):
        tensor.encode_tensor(np.zeros(3))  # type: ignore[arg-type]
    content = tensor.encode_tensor(np.full(100, 1 / 3, np.float32))
    with pytest.raises(ModelError, match="no float16"):
        tensor.decode_tensor(content, (100,), np.float16)
    with pytest.raises(ModelError, match="100 numbers instead of 99"):
        tensor.decode_tensor(content, (99,))


GOLDEN = {
    "raw": (np.array([1, -2, 0.5]), "0003 01 003c00c00038"),
    "constant": (np.full(300, 0.25), "01 ac02 01 01 0034 00 0000"),
    "huffman": (np.array([0, 0, 1, 0, 2, 1, 0, 0] * 4), "01 20 03 01 0000003c0040 00 01 2102 0600 2704e09c1380"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_format_does_not_drift(name: str) -> None:
    values, content = GOLDEN[name]
    assert tensor.encode_tensor(values.astype(np.float32)).hex() == content.replace(" ", "")


def test_a_sparse_tensor_is_smaller_than_a_dense_one() -> None:
    values = pruned((16, 64, 3, 3), 0.02, 5) + np.float32(0)  # no -0: zero is one code
    summary = tensor.describe(tensor.encode_tensor(values))
    assert summary.form == "sparse"
    assert summary.size_bytes < values.size / 12
    assert same(tensor.decode_tensor(tensor.encode_tensor(values), values.shape), values)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "1 bytes are declared at byte 0 where 0 are left"),
        ("00", "1 bytes are declared"),
        ("03 00", "form 3"),
        ("01 00", "form 1 of 0 numbers"),
        ("00 ffffffff7f 00", "numbers instead of up to"),
        ("00 ffffffffff7f 00", "does not end"),
        ("00 8000 00", "superfluous"),
        ("00 01 02 00", "unknown kind"),
        ("00 01 01 003c 00", "1 bytes too many"),
        ("01 05 00 01", "0 values"),
        ("01 05 8109 01", "1153 values"),
        ("01 05 01 01 003c 00 00 01", "symbol 1 of an alphabet of 1"),
        ("01 05 01 01 003c 00 03", "coder 3 is unknown"),
        ("01 05 01 01 003c 04 05 00 00 00 0f", "gaps of 4 bits"),  # there is no zero
        ("01 05 02 01 0000003c 07 05 00 00 00 0f", "gaps of 7 bits"),
        ("01 05 02 01 0000003c 04 06 00 00 00 0f", "6 entries"),
        ("01 05 02 01 0000003c 04 02 0001 0003", "run to place 7 of 5"),
        ("01 05 02 01 0000003c 00 01 21 0100 00", "no full prefix code"),
        ("01 05 02 01 0000003c 00 01 1d 0100 00", "impossible lengths"),
        ("01 05 03 01 0000003c0040 00 01 2112 0100 00", "impossible lengths"),
        ("01 05 02 01 0000003c 00 01 11 0200 00", "2 bytes are declared"),
        ("01 05 02 01 0000003c 00 01 11 0200 0000", "do not end where"),
        ("01 05 02 01 0000003c 00 02 01fe1f 0000 00000100", "add up to 4095"),
        ("01 05 02 01 0000003c 00 02 0102 0000 00000100", "add up to 3"),
        ("01 05 02 01 0000003c 00 02 01ff1f 0000 ffff0000", "a state is too small"),
        ("01 05 02 01 0000003c 00 02 01ff1f 0000 01000100", "do not end where"),
        ("02 05 02 01 0000003c 02 01 00 00 00", "2 by 1 channels for 5"),
        ("02 05 02 01 0000003c 00 05 00 00 00", "0 by 5 channels for 5"),
        ("02 04 02 01 0000003c ffffffff7f 01", "channels for 4"),
        ("02 02 02 01 0000003c 02 01 00 10", "follows the levels"),
    ],
)
def test_bad_bytes(content: str, sentence: str) -> None:
    with pytest.raises(ModelError, match="damaged") as caught:
        tensor.describe(bytes.fromhex(content))
        tensor.decode_tensor(bytes.fromhex(content), (5,))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
