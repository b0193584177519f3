"""Bundles: what is written is read; what is damaged is refused with one sentence."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.coding import tensor
from squeezedet.errors import ModelError, UsageError
from squeezedet.models.registry import NETWORKS
from squeezedet.runtime import DEFAULT_MODEL, bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.detector import load


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return bundle.read(bundle.find("street"))


def pack(path: Path, card: bytes, graph: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.json", card)
        archive.writestr("model.onnx", graph)


def rewrite(path: Path, change: Callable[[dict[str, Any]], None], graph: bytes | None = None) -> None:
    """Change the card of a bundle in place."""
    graph = graph or bundle.read(path).graph
    with zipfile.ZipFile(path) as archive:
        card = json.loads(archive.read("card.json"))
    change(card)
    pack(path, json.dumps(card).encode(), graph)


@pytest.fixture
def copy(tmp_path: Path, shipped: Bundle) -> Path:
    path = tmp_path / "copy.bundle"
    bundle.write(path, shipped)
    return path


def test_round_trip(copy: Path, shipped: Bundle) -> None:
    again = bundle.read(copy)
    assert again.card == shipped.card
    assert again.graph == shipped.graph
    assert bundle.read_card(copy) == shipped.card
    first = copy.read_bytes()
    bundle.write(copy, again)
    assert copy.read_bytes() == first


def test_a_graph_is_deflated_where_that_makes_it_smaller(tmp_path: Path, shipped: Bundle) -> None:
    path, small, large = tmp_path / "x.bundle", bytes(range(64)) * 1000, np.random.default_rng(0).bytes(64_000)
    for graph, members in ((small, {"template", "tensors.json", "tensors.bin"}), (large, {"model.onnx"})):
        card = replace(shipped.card, graph_sha256=hashlib.sha256(graph).hexdigest())
        bundle.write(path, Bundle(card, graph))
        assert set(zipfile.ZipFile(path).namelist()) == {"card.json", *members}
        with pytest.raises(ModelError, match="ONNX"):  # it is read as far as the check of the graph
            bundle.read(path)


def test_shipped_card_is_complete(shipped: Bundle) -> None:
    card = shipped.card
    assert card.classes == ("car", "pedestrian", "cyclist")
    assert card.parameters == 928_888
    assert (card.input.width, card.input.height) == (1248, 384)
    assert "KITTI" in card.data
    assert "NC" in card.licence
    assert card.results


def test_truncated_file(copy: Path) -> None:
    content = copy.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        copy.write_bytes(content[:length])
        with pytest.raises(ModelError, match="truncated"):
            load(copy)


def test_changed_graph(copy: Path, shipped: Bundle) -> None:
    graph = bytearray(shipped.graph)
    graph[len(graph) // 2] ^= 1
    rewrite(copy, lambda card: None, bytes(graph))
    with pytest.raises(ModelError, match="checksum"):
        load(copy)


def test_flipped_bit_in_the_archive(copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(bytes(content))
    with pytest.raises(ModelError, match="damaged"):
        load(copy)


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda card: card.pop(name)


def put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda card: card.update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        drop("classes"),
        drop("format"),
        drop("input"),
        put("format", "squeezedet bundle 99"),
        put("surprise", 1),
        put("classes", []),
        put("classes", ["car", "car"]),
        put("classes", 3),
        put("classes", "cab"),
        put("classes", ["car", 3]),
        put("classes", ["car", ["van"]]),
        put("classes", ["car", ""]),
        put("classes", ["car", "\ud800"]),
        put("input", [1248, 384]),
        put("input", "1248x384"),
        put("input", {"width": 1248}),
        put("input", {"width": "1248", "height": 384, "fixed": False}),
        put("input", {"width": "x", "height": 384, "fixed": False}),
        put("input", {"width": 1248.0, "height": 384, "fixed": False}),
        put("input", {"width": -1, "height": 384, "fixed": False}),
        put("input", {"width": 1248, "height": 375, "fixed": False}),
        put("input", {"width": 1248, "height": 8, "fixed": True}),
        put("input", {"width": 4112, "height": 384, "fixed": False}),
        put("input", {"width": 10**4000, "height": 384, "fixed": False}),
        put("input", {"width": 1248, "height": 384, "fixed": "no"}),
        put("selection", {"top": 3}),
        put("selection", {"top_n": "64"}),
        put("selection", {"top_n": 6.4}),
        put("selection", {"top_n": 0}),
        put("selection", {"top_n": 10**9}),
        put("selection", {"score": "0.4"}),
        put("selection", {"score": 1.5}),
        put("selection", {"score": float("nan")}),
        put("selection", {"nms_iou": -0.1}),
        put("selection", None),
        put("name", None),
        put("detector", 1),
        put("licence", ["MIT"]),
        put("data", {}),
        put("parameters", "2"),
        put("parameters", 2.5),
        put("opset", True),
        put("training", "long"),
        put("results", [1]),
        put("graph_sha256", 0),
        lambda card: card["training"].update(score_odds=[0, 0, 0]),
        lambda card: card["training"].update(score_odds="many"),
        lambda card: card["training"].update(export=["nms"]),
    ],
)
def test_bad_cards(copy: Path, change: Callable[[dict[str, Any]], None]) -> None:
    rewrite(copy, change)
    with pytest.raises(ModelError, match=str(copy)):
        load(copy)


def test_a_number_of_5000_digits(copy: Path, shipped: Bundle) -> None:
    text = shipped.card.to_json().replace('"opset": 18', '"opset": ' + "9" * 5000)
    assert "9" * 5000 in text
    pack(copy, text.encode(), shipped.graph)
    with pytest.raises(ModelError, match="no JSON"):
        load(copy)


@pytest.mark.parametrize("member", ["model.onnx"])
def test_members_must_be_stored(copy: Path, shipped: Bundle, member: str) -> None:
    with zipfile.ZipFile(copy, "w") as archive:
        for name, content in (("card.json", shipped.card.to_json().encode()), ("model.onnx", bytes(10_000_000))):
            kind = zipfile.ZIP_DEFLATED if name == member else zipfile.ZIP_STORED
            archive.writestr(name, content, compress_type=kind)
    with pytest.raises(ModelError, match=f"{member} is compressed"):
        load(copy)


def test_members_must_not_be_large(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(copy, lambda card: None)
    size = len(bundle.read(copy).graph)
    monkeypatch.setattr(bundle, "MAX_BYTES", {**bundle.MAX_BYTES, bundle.GRAPH: size})
    assert bundle.read(copy).graph
    monkeypatch.setattr(bundle, "MAX_BYTES", {**bundle.MAX_BYTES, bundle.GRAPH: size - 1})
    with pytest.raises(ModelError, match=r"model\.onnx is larger"):
        load(copy)


def directory(content: bytes, offset: int, value: bytes) -> bytes:
    """A zip archive with other bytes in the first entry of its central directory."""
    start = content.index(b"PK\x01\x02") + offset
    return content[:start] + value + content[start + len(value) :]


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (6, b"\x63\x00"),  # needs version 9.9
        (8, b"\x01\x00"),  # encrypted
        (20, b"\x10\x00\x00\x00"),  # sizes that do not agree
        (24, b"\x10\x00\x00\x00"),
        (42, b"\x10\x00\x00\x00"),  # the member is elsewhere
    ],
)
def test_damaged_directory(copy: Path, offset: int, value: bytes) -> None:
    copy.write_bytes(directory(copy.read_bytes(), offset, value))
    with pytest.raises(ModelError, match=str(copy)):
        load(copy)


def test_a_member_name_that_is_no_text(copy: Path) -> None:
    content = directory(copy.read_bytes(), 8, b"\x00\x08")  # names are UTF-8
    copy.write_bytes(directory(content, 46, b"\xff"))
    with pytest.raises(ModelError, match="damaged"):
        load(copy)


@given(
    cut=st.floats(0, 1), changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6)
)
def test_damaged_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, shipped: Bundle, cut: float, changes: list[tuple[float, int]]
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "it.bundle"
    card = replace(shipped.card, training={}, results={})
    bundle.write(path, Bundle(card, b"graph"))  # short, so that most changes hit what matters
    content = bytearray(path.read_bytes())
    for where, value in changes:
        content[int(where * len(content))] = value
    path.write_bytes(content[: int(len(content) * max(cut, 0.5)) if cut < 0.9 else None])
    with contextlib.suppress(ModelError):
        assert bundle.read_card(path).classes
    with pytest.raises(ModelError):
        bundle.read(path)  # the checksum is that of another graph


def test_missing_members(tmp_path: Path) -> None:
    path = tmp_path / "empty.bundle"
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(ModelError, match=r"has no card\.json"):
        load(path)


def test_wrong_opset(copy: Path, shipped: Bundle) -> None:
    import hashlib

    import onnx

    model = onnx.load_from_string(shipped.graph)
    model.opset_import[0].version = 9999
    graph = model.SerializeToString()
    rewrite(copy, put("graph_sha256", hashlib.sha256(graph).hexdigest()), graph)
    with pytest.raises(ModelError, match="cannot run the model"):
        load(copy)


def test_a_graph_that_is_no_detector(copy: Path) -> None:
    import hashlib

    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    graph = model.SerializeToString()
    onnx.checker.check_model(graph)
    rewrite(copy, put("graph_sha256", hashlib.sha256(graph).hexdigest()), graph)
    with pytest.raises(ModelError, match="a detector takes uint8"):
        load(copy)


def test_unknown_model() -> None:
    with pytest.raises(UsageError, match="shipped: street"):
        load("no-such-model")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such model file"):
        load(tmp_path)


# ---------------------------------------------------------------- coded weights

VALUES = np.tile(np.array([0, 0, 0, 0.5, 0, -1], np.float32), 100)
GRAPH = b"begin" + VALUES.tobytes() + b"end"


def packed(digest: str) -> bytes:
    card = replace(bundle.read_card(bundle.find("street")), graph_sha256=digest)
    return bundle.to_bytes(Bundle(card, GRAPH), {"w": tensor.encode_tensor(VALUES)})


CONTENT = packed(hashlib.sha256(GRAPH).hexdigest())


@pytest.fixture
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """These bytes are no ONNX; ``test_graph_check`` has real ones."""
    monkeypatch.setattr(bundle, "check_graph", lambda graph, where: None)
    path = tmp_path / "tiny.bundle"
    path.write_bytes(CONTENT)
    return path


def test_coded_weights_come_back(coded: Path) -> None:
    found = bundle.read(coded)
    assert found.graph == GRAPH
    assert found.card == bundle.read_card(coded)
    renamed = coded.rename(coded.with_suffix(".sqz"))  # the content counts
    assert bundle.read(renamed).graph == GRAPH


def test_a_graph_that_is_not_the_cards(coded: Path) -> None:
    coded.write_bytes(packed("0" * 64))
    with pytest.raises(ModelError, match="checksum is not the card's"):
        bundle.read(coded)


@pytest.mark.parametrize("length", [8, 20, 100, len(CONTENT) - 1])
def test_truncated_coded_weights(coded: Path, length: int) -> None:
    coded.write_bytes(CONTENT[:length])
    for read in (bundle.read, bundle.read_card):
        with pytest.raises(ModelError, match=r"tiny\.bundle: .*truncated"):
            read(coded)


def test_damaged_coded_weights(coded: Path) -> None:
    content = bytearray(CONTENT)
    content[content.index(b"tensors.bin") + 20] ^= 1
    coded.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        bundle.read(coded)


def test_a_file_that_is_too_large(coded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_FILE_BYTES", len(CONTENT) - 1)
    with pytest.raises(ModelError, match=r"tiny\.bundle: more than"):
        bundle.read(coded)


def test_a_file_of_squeezedet_0_1(tmp_path: Path) -> None:
    """A ``.sqz``, whose sections are those of ``coding.legacy``, opens as before."""
    from tests.coding.test_legacy import OLD

    (tmp_path / "old.sqz").write_bytes(OLD)
    assert bundle.is_bundle(tmp_path / "old.sqz")
    with pytest.raises(ModelError, match=r"old\.sqz: the card does not say"):
        bundle.read(tmp_path / "old.sqz")  # the card of that file is no detector's


# ---------------------------------------------------------------- names


def test_shipped_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "WEIGHTS", tmp_path)
    for name in ("b.bundle", "a.bundle", "demo.jpg"):
        (tmp_path / name).touch()
    assert list(bundle.shipped()) == ["a", "b"]
    assert bundle.find("a") == tmp_path / "a.bundle"


def test_the_default_is_shipped_and_no_network_has_its_name() -> None:
    assert DEFAULT_MODEL in bundle.shipped()
    assert not set(bundle.shipped()) & set(NETWORKS)


@pytest.mark.parametrize(("former", "name"), bundle.FORMER_NAMES.items())
def test_former_names(former: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    bundle._note_new_name.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert bundle.find(former) == bundle.find(former) == bundle.find(name)
    assert bundle.read_card(bundle.find(former)).name == name
    (note,) = caplog.messages
    assert former in note
    assert name in note


def test_a_member_is_inflated_no_further_than_declared(shipped: Bundle, tmp_path: Path) -> None:
    """The directory says little, the stream holds 64 MB."""
    path = tmp_path / "a.bundle"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("card.json", b" " * 64_000_000)
    content = bytearray(path.read_bytes())
    size = (64_000_000).to_bytes(4, "little")
    for at in (content.index(size), content.rindex(size)):
        content[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ModelError):
        bundle.read(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
