"""Graphs of strangers: nothing that an export of ours does not hold comes near an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from squeezedet.errors import ModelError
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.detector import Detector
from squeezedet.runtime.graph_check import check_graph

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def street() -> Bundle:
    return bundle.read(bundle.find("street"))


@pytest.mark.parametrize("name", bundle.shipped())
def test_our_own_pass(name: str) -> None:
    check_graph(bundle.read(bundle.find(name)).graph, name)


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secret.bin"
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")


def external_in_an_attribute(model: Any) -> None:
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [1.0])
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor))


def location_alone(model: Any) -> None:
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def body() -> Any:
    value = onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, [])
    return onnx.helper.make_graph([], "body", [value], [value])


def loop(model: Any) -> None:
    model.graph.node.append(onnx.helper.make_node("Loop", ["", ""], ["l"], body=body()))


def condition(model: Any) -> None:
    node = onnx.helper.make_node("If", ["images"], ["l"], then_branch=body(), else_branch=body())
    model.graph.node.append(node)


def hidden_graph(model: Any) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("note", body()))


def hidden_graphs(model: Any) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("note", [body()]))


def custom_domain(model: Any) -> None:
    model.graph.node.append(onnx.helper.make_node("Relu", ["images"], ["r"], domain="my.ops"))


def custom_opset(model: Any) -> None:
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def functions(model: Any) -> None:
    node = onnx.helper.make_node("Relu", ["a"], ["b"])
    opset = [onnx.helper.make_opsetid("", 18)]
    model.functions.append(onnx.helper.make_function("", "Relu", ["a"], ["b"], [node], opset))


def unknown_operator(model: Any) -> None:
    model.graph.node.append(onnx.helper.make_node("RandomNormal", [], ["r"], shape=[3]))


def cycle(model: Any) -> None:
    model.graph.node.insert(0, onnx.helper.make_node("Add", ["images", "later"], ["sooner"]))
    model.graph.node.append(onnx.helper.make_node("Relu", ["sooner"], ["later"]))


def two_makers(model: Any) -> None:
    name = model.graph.node[0].output[0]
    model.graph.node.append(onnx.helper.make_node("Relu", ["images"], [name]))


def sparse(model: Any) -> None:
    model.graph.sparse_initializer.add()


def no_stride(model: Any) -> None:
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    for attribute in conv.attribute:
        if attribute.name == "strides":
            attribute.ints[:] = [0, 0]


def huge_pads(model: Any) -> None:
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.attribute.append(onnx.helper.make_attribute("pads", [1 << 40] * 4))


def short_tensor(model: Any) -> None:
    model.graph.initializer[0].dims.append(1 << 40)


def two_kinds_of_data(model: Any) -> None:
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [1.0])
    tensor.raw_data = b"\0\0\0\0"
    model.graph.initializer.append(tensor)


CHANGES: list[tuple[Callable[[Any], None], str]] = [
    (external, "another file"),
    (external_in_an_attribute, "another file"),
    (location_alone, "another file"),
    (loop, "sub-graph|operator"),
    (condition, "sub-graph|operator"),
    (hidden_graph, "sub-graph"),
    (hidden_graphs, "sub-graph"),
    (custom_domain, "domain 'my.ops'"),
    (custom_opset, r"domain 'com\.microsoft'"),
    (functions, "functions"),
    (unknown_operator, "operator 'RandomNormal'"),
    (cycle, "a cycle"),
    (two_makers, "two operators make"),
    (sparse, "sparse"),
    (no_stride, "strides"),
    (huge_pads, "pads"),
    (short_tensor, "do not fit"),
    (two_kinds_of_data, "do not fit"),
]


def changed(street: Bundle, change: Callable[[Any], None]) -> bytes:
    model = onnx.load_from_string(street.graph)
    change(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(("change", "says"), CHANGES, ids=lambda x: getattr(x, "__name__", ""))
def test_refused(street: Bundle, change: Callable[[Any], None], says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        check_graph(changed(street, change), "m.bundle")
    assert str(caught.value).startswith("m.bundle: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_no_engine_sees_it(street: Bundle, engine: str) -> None:
    pytest.importorskip(engine)
    with pytest.raises(ModelError, match="another file"):
        Detector(Bundle(street.card, changed(street, external)), engine=engine)


def test_every_way_of_reading(street: Bundle, tmp_path: Path) -> None:
    import hashlib
    from dataclasses import replace

    from squeezedet.runtime.exported import attach

    graph = changed(street, external)
    card = replace(street.card, graph_sha256=hashlib.sha256(graph).hexdigest())
    bundle.write(tmp_path / "m.bundle", Bundle(card, graph))
    (tmp_path / "m.onnx").write_bytes(attach(graph, card.to_json().encode()))
    for name in ("m.bundle", "m.onnx"):
        with pytest.raises(ModelError, match=f"{name}.*another file"):
            bundle.read(tmp_path / name)


def mutations(graph: bytes) -> Iterator[bytes]:
    yield b""
    yield graph[: len(graph) // 2]
    yield graph + graph
    yield b"\x3a\x7f" + graph[:20]


def test_damage_is_one_sentence(street: Bundle) -> None:
    for content in mutations(street.graph):
        with pytest.raises(ModelError):
            check_graph(content, "x")
