"""Deltas give back every bit, whatever the two models are, and cost little."""

from __future__ import annotations

import json
import lzma
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squeezedet.errors import ModelError
from squeezedet.ota import delta
from squeezedet.runtime import bundle

ROOT = Path(__file__).resolve().parents[2]


def test_what_did_not_change_costs_next_to_nothing(fleet: Any) -> None:
    first, second, third = (bundle.plain_parts(path) for path in fleet.models)
    whole = len(delta.encode({}, first))
    assert len(delta.encode(first, first)) < 120
    trained, heads = delta.encode(first, second), delta.encode(second, third)
    assert delta.decode(trained, first) == second
    assert delta.decode(heads, second) == third
    assert len(trained) < whole / 5  # 0.2 of the weights moved by one: 0.92 bits each
    assert len(heads) < whole / 20


@pytest.mark.parametrize("pair", [("street", "street-ssd"), ("", "parent")])
def test_models_of_any_kind(pair: tuple[str, str]) -> None:
    paths = {"parent": ROOT / "parents" / "squeezedet-slim.bundle"}
    old, new = (bundle.plain_parts(bundle.find(paths.get(name, name))) if name else {} for name in pair)
    assert delta.decode(delta.encode(old, new), old) == new


def test_few_values_cost_their_codes() -> None:
    """Deep compression's tensors: a codebook that is learned again costs its values, not its codes."""
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 32, 50_000)

    def model(book: np.ndarray, codes: np.ndarray) -> dict[str, bytes]:
        tensor = onnx.numpy_helper.from_array(np.sort(book)[codes].astype(np.float32), "w")
        graph = onnx.helper.make_graph([], "g", [], [], [tensor])
        return {"model.onnx": onnx.helper.make_model(graph).SerializeToString()}

    book = rng.normal(size=32)
    old, new = model(book, codes), model(book * 1.01 + 1e-3, codes)
    made = delta.encode(old, new)
    assert delta.decode(made, old) == new
    assert len(made) < 400
    other = codes.copy()
    other[::100] = (other[::100] + 1) % 32
    made = delta.encode(old, model(book * 1.01, other))
    assert delta.decode(made, old) == model(book * 1.01, other)
    assert len(made) < 1500


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=400), st.binary(max_size=300))
def test_any_bytes(a: bytes, b: bytes, c: bytes) -> None:
    old, new = {"card.json": a, "model.onnx": b + c + a}, {"card.json": c + b, "model.onnx": a + c + b}
    assert delta.decode(delta.encode(old, new), old) == new


def test_damaged_ones_are_one_sentence(fleet: Any) -> None:
    first, second = (bundle.plain_parts(path) for path in fleet.models[:2])
    made = delta.encode(first, second)
    rng = np.random.default_rng(2)
    for at in rng.integers(0, len(made), 60):
        wrong = bytearray(made)
        wrong[at] ^= 1 << int(rng.integers(8))
        with suppress(ModelError):
            assert delta.decode(bytes(wrong), first) != second
    for end in (0, 1, 100, len(made) // 2, len(made) - 1):
        with pytest.raises(ModelError, match="the delta is damaged"):
            delta.decode(made[:end], first)


@pytest.mark.parametrize(
    "head",
    [
        {"a": [[0, 10]]},
        {"a": [[1, 10, 5]]},
        {"a": [[1, 10**12, 0]]},
        {"a": [[1, 200_000_000, -1], [1, 200_000_000, -1]]},
        {"a": [[3, 8, -1, 0, 1, 1]]},
        {"a": [[2, 8, -1, 0, 3, 1]]},
        {"a": [[4, 8, -1, 4, 4, 0]]},
        {"a": [[1, 1.5, 0]]},
        {"a": [[True, 1, 0]]},
        {"a": [["1"]]},
        {"a": [[9, 9, 9, 9, 9, 9, 9]]},
        {"a": {}},
        [1],
        7,
    ],
)
def test_wrong_instructions_are_one_sentence(head: Any) -> None:
    text = json.dumps(head).encode() + b"\n"
    made = lzma.compress(text, lzma.FORMAT_RAW, filters=delta.FILTERS)
    if head == {"a": {}}:
        assert delta.decode(made, {}) == {"a": b""}
        return
    with pytest.raises(ModelError):
        delta.decode(made, {"a": b"12345678"})


def test_a_small_file_does_not_become_a_huge_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "MAX_MODEL_BYTES", 1_000_000)
    bomb = lzma.compress(bytes(delta.MAX_MODEL_BYTES + 1), lzma.FORMAT_RAW, filters=delta.FILTERS)
    with pytest.raises(ModelError, match="does not end where it should"):
        delta.decode(bomb, {})
