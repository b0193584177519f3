"""Bundles: what is written is read; what is damaged is refused with one sentence."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squeezedet.errors import ModelError, UsageError
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.detector import load


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return bundle.read(bundle.find("squeezedet"))


def rewrite(
    path: Path, change: Callable[[dict[str, Any]], None], graph: bytes | None = None
) -> None:
    """Change the card of a bundle in place."""
    with zipfile.ZipFile(path) as archive:
        card = json.loads(archive.read("card.json"))
        graph = graph or archive.read("model.onnx")
    change(card)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.json", json.dumps(card))
        archive.writestr("model.onnx", graph)


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
    assert copy.read_bytes() == bundle.find("squeezedet").read_bytes()


def test_shipped_card_is_complete(shipped: Bundle) -> None:
    card = shipped.card
    assert card.classes == ("car", "pedestrian", "cyclist")
    assert card.parameters == 2_082_120
    assert (card.input.width, card.input.height) == (1248, 384)
    assert "KITTI" in card.data
    assert "NC" in card.licence
    assert card.results
    assert bundle.find("squeezedet").stat().st_size < 8_300_000


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
        put("input", {"width": "x"}),
        put("input", {"width": -1, "height": 10, "fixed": False}),
        put("selection", {"top": 3}),
    ],
)
def test_bad_cards(copy: Path, change: Callable[[dict[str, Any]], None]) -> None:
    rewrite(copy, change)
    with pytest.raises(ModelError, match=str(copy)):
        load(copy)


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
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 10
    graph = model.SerializeToString()
    onnx.checker.check_model(graph)
    rewrite(copy, put("graph_sha256", hashlib.sha256(graph).hexdigest()), graph)
    with pytest.raises(ModelError, match="a detector takes uint8"):
        load(copy)


def test_unknown_model() -> None:
    with pytest.raises(UsageError, match="shipped: squeezedet"):
        load("no-such-model")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such model file"):
        load(tmp_path)
