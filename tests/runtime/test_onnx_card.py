"""A card behind a graph: the graph stays as it is, and other programs see an entry of metadata."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.errors import ModelError
from squeezedet.runtime import bundle
from squeezedet.runtime.exported import HEAD, attach, detach


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_round_trip(graph: bytes, card: bytes) -> None:
    assert detach(attach(graph, card), "x") == (card, graph)


def test_a_graph_that_had_one() -> None:
    assert detach(attach(attach(b"graph", b"old"), b"new"), "x") == (b"new", attach(b"graph", b"old"))


def test_onnx_reads_it() -> None:
    onnx = pytest.importorskip("onnx")
    shipped = bundle.read(bundle.find("street"))
    model = onnx.load_from_string(attach(shipped.graph, shipped.card.to_json().encode()))
    assert {entry.key: entry.value for entry in model.metadata_props}["squeezedet.card"] == shipped.card.to_json()
    onnx.checker.check_model(model)


@given(st.binary(max_size=60))
def test_any_bytes(content: bytes) -> None:
    for damaged in (content, HEAD + content, attach(b"graph", b"card")[:-1] + content):
        with contextlib.suppress(ModelError):
            card, graph = detach(damaged, "x")
            assert attach(graph, card) == damaged


def test_a_stranger() -> None:
    with pytest.raises(ModelError, match="not exported by squeezedet"):
        detach(bundle.read(bundle.find("street")).graph, "x.onnx")
