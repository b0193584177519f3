"""Files for other programs: the model comes back with its card, or one sentence says why not."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.errors import ModelError, UsageError
from squeezedet.runtime import bundle, exported
from squeezedet.runtime.card import Card
from squeezedet.runtime.detector import load
from squeezedet.runtime.exported import HEAD, attach, detach

GRAPH, WEIGHTS = b"7767517 graph", b"weights" * 10


@pytest.fixture(scope="module")
def card() -> Card:
    return bundle.read_card(bundle.find("street"))


def signed(card: Card, content: bytes) -> str:
    return replace(card, graph_sha256=hashlib.sha256(content).hexdigest()).to_json()


def attribute(text: str) -> str:
    line = json.dumps(json.loads(text))
    return line.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def xml(value: str, before: str = "") -> bytes:
    return (
        f'<?xml version="1.0"?>{before}<net><layers/><rt_info><squeezedet>'
        f'<card value="{value}" /></squeezedet></rt_info></net>'
    ).encode()


def write(folder: Path, kind: str, card: Card) -> Path:
    """A model of a format whose graph is no graph: nothing here runs it."""
    match kind:
        case "onnx":
            path = folder / "m.onnx"
            path.write_bytes(attach(GRAPH, signed(card, GRAPH).encode()))
        case "openvino":
            path = folder / "m.xml"
            path.write_bytes(xml(attribute(signed(card, WEIGHTS))))
            path.with_suffix(".bin").write_bytes(WEIGHTS)
        case _:
            path = folder / "m.ncnn.param"
            path.write_bytes(GRAPH)
            path.with_suffix(".bin").write_bytes(WEIGHTS)
            text = signed(card, GRAPH + WEIGHTS)
            path.with_suffix(".json").write_text(text, encoding="utf-8")
    return path


KINDS = ("onnx", "openvino", "ncnn")


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_read(tmp_path: Path, card: Card, kind: str) -> None:
    path = write(tmp_path, kind, card)
    found = exported.read(path, trust_model=True)
    assert found.format == kind
    assert found.card.classes == card.classes
    assert found.card == bundle.read_card(path)
    assert found.graph == (path.read_bytes() if kind == "openvino" else GRAPH)
    assert found.weights == (WEIGHTS if kind in ("openvino", "ncnn") else b"")
    assert all(p.is_file() for p in exported.companions(path))


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_must_be_there_and_whole(tmp_path: Path, card: Card, kind: str) -> None:
    path = write(tmp_path, kind, card)
    for file in (*exported.companions(path), path):
        content = file.read_bytes()
        for damaged in (b"", content[:-2], content[: len(content) // 2], content[1:]):
            file.write_bytes(damaged)
            with pytest.raises(ModelError, match=r"m\.(ncnn\.)?\w+: "):
                exported.read(path, trust_model=True)
        if file == path:
            continue
        file.unlink()
        with pytest.raises(ModelError, match="no such file"):
            exported.read(path, trust_model=True)
        file.write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_another_checksum(tmp_path: Path, card: Card, kind: str) -> None:
    path = write(tmp_path, kind, card)
    file = path if kind == "onnx" else path.with_suffix(".bin")
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match="checksum is not the card's"):
        exported.read(path, trust_model=True)


@pytest.mark.parametrize("kind", KINDS)
def test_limits(tmp_path: Path, card: Card, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, kind, card)
    monkeypatch.setattr(exported, "MAX_GRAPH_BYTES", 50)
    monkeypatch.setattr(exported, "MAX_BYTES", {".param": 10_000, ".xml": 100_000, ".json": 100_000})
    with pytest.raises(ModelError, match="more than"):
        exported.read(path, trust_model=True)
    monkeypatch.setattr(exported, "MAX_GRAPH_BYTES", 100_000)
    monkeypatch.setattr(exported, "MAX_BYTES", {".json": 100, ".param": 1, ".xml": 100})
    with pytest.raises(ModelError, match="than"):
        exported.read(path, trust_model=True)


BOMB = '<!DOCTYPE net [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda text: xml(text, BOMB), "declares an entity"),
        (lambda text: xml(text)[:-3], "not a model of openvino"),
        (lambda text: b"<net/>", "without a card"),
        (lambda text: xml(text).replace(b"<squeezedet>", b"<other>"), "not a model of openvino"),
        (lambda text: xml("{}"), "does not say"),
        (lambda text: b'<?xml version="1.0" encoding="x-none"?><net/>', "not a model of openvino"),
        (lambda text: b"<a>" * 100_000, "not a model of openvino"),
    ],
)
def test_hostile_xml(tmp_path: Path, card: Card, content: Callable[[str], bytes], sentence: str) -> None:
    path = write(tmp_path, "openvino", card)
    path.write_bytes(content(attribute(card.to_json())))
    with pytest.raises(ModelError, match=sentence):
        exported.read(path, trust_model=True)


def test_a_file_for_an_engine_is_no_bundle(tmp_path: Path, card: Card) -> None:
    model = bundle.read(write(tmp_path, "ncnn", card), trust_model=True)
    with pytest.raises(UsageError, match="this model is ncnn"):
        bundle.write(tmp_path / "x.bundle", model)
    assert not (tmp_path / "x.bundle").exists()


def test_a_model_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "yolo.onnx"
    path.write_bytes(bundle.read(bundle.find("street")).graph)
    with pytest.raises(ModelError, match="not exported by squeezedet"):
        load(path)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_program_must_be_trusted(tmp_path: Path, card: Card, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless this user's own export wrote exactly these bytes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    path = write(tmp_path, kind, card)
    for opened in (bundle.read, load):
        with pytest.raises(ModelError, match=f"a {kind} file is a program.*trust_model"):
            opened(path)
    found = bundle.read(path, trust_model=True)
    exported.remember(kind, (found.graph, found.weights))
    assert bundle.read(path).graph == found.graph
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(ModelError):
        bundle.read(path)


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
