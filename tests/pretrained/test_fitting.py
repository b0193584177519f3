"""Which tensor is wrong, and what was expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from squeezedet.errors import ModelError
from squeezedet.pretrained.read import check_fit

WANTED = {"conv1.weight": (2, 3), "conv1.bias": (2,)}
PATH = Path("file.npz")


def given(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    arrays = {name: np.zeros(shape, np.float32) for name, shape in WANTED.items()}
    changed = {name.replace("__", "."): array for name, array in changes.items()}
    return {n: a for n, a in (arrays | changed).items() if a is not None}


def test_what_fits() -> None:
    check_fit(WANTED, given(), PATH)
    check_fit(WANTED, given(conv10__weight=np.zeros(1)), PATH, left_over=("conv10",))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            given(conv1__weight=np.zeros((3, 2))),
            "file.npz: expected conv1.weight of shape 2x3, but in the file it is 3x2",
        ),
        (given(conv1__bias=None), "file.npz: expected conv1.bias of shape 2, but the file has only 'conv1.weight'"),
        ({}, "file.npz: expected conv1.weight of shape 2x3, but the file has only nothing"),
        (given(conv1__bias=np.array([0, np.nan])), "conv1.bias holds infinity, or what is no"),
        (given(fc__weight=np.zeros(1)), "the network has no place for 'fc.weight'"),
    ],
)
def test_what_does_not_fit(arrays: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_fit(WANTED, arrays, PATH)
    assert sentence in str(caught.value)


def test_a_thousand_names_are_not_listed() -> None:
    many = given() | {f"x{i}" * 100: np.zeros(1) for i in range(1000)}
    with pytest.raises(ModelError, match="and 997 more") as caught:
        check_fit(WANTED, many, PATH)
    assert len(str(caught.value)) < 400
