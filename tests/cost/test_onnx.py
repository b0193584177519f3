from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from squeezedet.cost.layers import Cost, count, memory_of
from squeezedet.cost.onnx import read
from squeezedet.errors import ModelError, UsageError
from squeezedet.models.profile import trace
from squeezedet.runtime import bundle
from squeezedet.training.checkpoint import load_detector

from ..conftest import SLIM

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]


def model(
    nodes: list[Any],
    weights: dict[str, tuple[int, ...]],
    shape: tuple[int | str, ...] = (1, 3, 12, 10),
    **constants: Any,
) -> bytes:
    kept = [numpy_helper.from_array(np.zeros(dims, np.float32), name) for name, dims in weights.items()]
    kept += [numpy_helper.from_array(np.array(v), name) for name, v in constants.items()]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        kept,
    )
    made = helper.make_model(graph, opset_imports=OPSETS)
    return bytes(made.SerializeToString())


def same(ours: Cost, torchs: Cost) -> None:
    assert ours.by_counting == torchs.by_counting
    for total in ("parameters", "macs", "flops_paper", "activation_bytes", "norm_elements"):
        assert getattr(ours, total) == getattr(torchs, total), total
    kinds = [[x.kind.split("+")[0] for x in c.layers if x.macs] for c in (ours, torchs)]
    assert kinds[0] == kinds[1]


def test_every_weighted_operation_counts_as_in_torch() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "c.weight", "c.bias"], ["c"], group=3, strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
        helper.make_node("Clip", ["n", "zero", "six"], ["r"]),
        helper.make_node("ConvTranspose", ["r", "t.weight"], ["t"], group=2),
        helper.make_node("LeakyRelu", ["t"], ["l"]),
        helper.make_node("MaxPool", ["l"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["a"]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("Gemm", ["f", "h.weight", "h.bias"], ["h"], transB=1),
        helper.make_node("MatMul", ["h", "w"], ["w1"]),
        helper.make_node("Add", ["w1", "wb"], ["y"]),
    ]
    weights = {"c.weight": (6, 1, 3, 3), "c.bias": (6,), "t.weight": (6, 2, 3, 3)}
    weights |= dict.fromkeys("gbmv", (6,))
    weights |= {"h.weight": (5, 4), "h.bias": (5,), "w": (5, 7), "wb": (7,)}
    content = model(nodes, weights, zero=np.float32(0), six=np.float32(6))
    twin = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, groups=3),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.ConvTranspose2d(6, 4, 3, groups=2, bias=False),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
        nn.Linear(5, 7),
    )
    graph = read(content, "net.onnx")
    ours, torchs = count(graph), count(trace(twin, (1, 3, 12, 10)))
    # In ONNX the bias of a MatMul is an Add of its own: no weight of a product.
    assert torchs.by_counting["layers"] - ours.by_counting.pop("layers") == 7
    torchs.by_counting.pop("layers")
    same(ours, torchs)
    assert [layer.name for layer in ours.layers if layer.macs] == ["c", "t", "h", "w"]
    assert memory_of(graph).peak.live == memory_of(trace(twin, (1, 3, 12, 10))).peak.live


def test_the_shipped_bundle_counts_as_its_network() -> None:
    shipped = bundle.read(SLIM)
    graph = read(shipped.graph, "squeezedet.bundle", (1248, 384))
    network = load_detector(str(SLIM))
    ours = count(graph)
    same(ours, count(trace(network, (1, 3, 384, 1248))))
    assert not graph.unsized
    assert count(read(shipped.graph, "b", (640, 384))).macs < ours.macs


def test_an_unknown_operation_has_no_size() -> None:
    graph = read(model([helper.make_node("Own", ["x"], ["y"], domain="own")], {}), "net")
    assert (graph.unsized, [step.kind for step in graph.steps]) == (("y",), ["other"])


def test_what_depends_on_the_data_is_named() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("NonZero", ["c"], ["y"])]
    graph = read(model(nodes, {"w": (2, 3, 1, 1)}), "net")
    assert graph.unsized == ("y",)
    assert count(graph).macs == 6 * 120


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an ONNX file"),
        (b"no protobuf at all", "not an ONNX file"),
        (model([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": (2, 4, 1, 1)}), "4 channels and"),
        (model([helper.make_node("Conv", ["gone", "w"], ["y"])], {"w": (2, 3, 1, 1)}), "net: "),
        (model([helper.make_node("Concat", ["x", "w"], ["y"], axis=1)], {"w": (2, 2)}), "do not fit"),
    ],
    ids=["empty", "text", "channels", "a name that is not there", "ranks"],
)
def test_a_damaged_file_is_one_sentence(content: bytes, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        read(content, "net")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_truncated_file_is_one_sentence() -> None:
    content = model([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": (2, 3, 1, 1)})
    onnx.load_from_string(content)  # whole, it is one
    for length in range(0, len(content) - 1, 7):
        with pytest.raises(ModelError, match="net: "):
            read(content[:length], "net")


def test_a_file_for_any_size_needs_one() -> None:
    content = model([helper.make_node("Relu", ["x"], ["y"])], {}, ("n", 3, "rows", "columns"))
    with pytest.raises(UsageError, match="`size`"):
        read(content, "net")
    assert count(read(content, "net", (20, 10))).input == (3, 10, 20)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=6))
def test_changed_bytes_give_an_answer_or_one_sentence(at: int, noise: bytes) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2]),
        helper.make_node("Clip", ["c", "zero"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["y"]),
    ]
    axes = np.array([2, 3])
    content = bytearray(model(nodes, {"w": (2, 3, 1, 1)}, zero=np.float32(0), axes=axes))
    at %= len(content)
    content[at : at + len(noise)] = noise
    try:
        graph = read(bytes(content), "net")
    except (ModelError, UsageError) as error:
        assert "\n" not in str(error)
    else:
        assert memory_of(graph).moments and count(graph).macs >= 0


def test_numbers_in_another_file_are_not_looked_for() -> None:
    made = onnx.load_from_string(model([helper.make_node("Clip", ["x", "w"], ["y"])], {"w": (1,)}))
    tensor = made.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    with pytest.raises(ModelError, match="its numbers are in another file"):
        read(made.SerializeToString(), "net")
