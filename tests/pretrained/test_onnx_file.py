"""ONNX files, written by onnx itself and by nobody in his right mind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper, numpy_helper

from squeezedet.errors import ModelError
from squeezedet.pretrained.onnx_file import read_graph
from squeezedet.pretrained.read import read_weights
from squeezedet.runtime import bundle

from ..conftest import SLIM
from .hostile import PATCHES, patched, survives

WEIGHT = np.arange(24, dtype=np.float32).reshape(4, 3, 2, 1) / 8
BIAS = np.array([1.5, -2, 0, 3], np.float32)


def model(*tensors: TensorProto, biased: bool = True) -> bytes:
    """Two nodes: a ReLU, then a convolution of ``w``, and ``b`` if it is biased."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "xy")
    nodes = [
        helper.make_node("Relu", ["x"], ["z"]),
        helper.make_node("Conv", ["z", "w", "b"] if biased else ["z", "w"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], list(tensors))
    return bytes(helper.make_model(graph).SerializeToString())


def raw(dtype: type = np.float32) -> bytes:
    arrays = {"b": BIAS, "w": WEIGHT}
    return model(*(numpy_helper.from_array(a.astype(dtype), n) for n, a in arrays.items()))


def typed(kind: int) -> bytes:
    """The numbers in the field of their type, not as bytes."""
    arrays = {"b": BIAS, "w": WEIGHT}
    return model(*(helper.make_tensor(n, kind, a.shape, a.ravel()) for n, a in arrays.items()))


@pytest.mark.parametrize(
    "content", [raw(), raw(np.float16), raw(np.float64), typed(TensorProto.FLOAT), typed(TensorProto.DOUBLE)]
)
def test_weights(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(content)
    weights = read_weights(path)
    assert {name: array.dtype for name, array in weights.items()} == dict.fromkeys(
        ("conv1.weight", "conv1.bias"), np.float32
    )
    np.testing.assert_array_equal(weights["conv1.weight"], WEIGHT)
    np.testing.assert_array_equal(weights["conv1.bias"], BIAS)


def test_without_bias(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(model(numpy_helper.from_array(WEIGHT, "w"), biased=False))
    assert list(read_weights(path)) == ["conv1.weight"]


def test_tensors_of_other_types_are_left_aside() -> None:
    tensors = [numpy_helper.from_array(np.arange(3), "ids"), numpy_helper.from_array(BIAS, "b")]
    assert list(read_graph(model(*tensors), Path("x")).tensors) == ["b"]


def test_shipped_graph_holds_what_onnx_reads_in_it() -> None:
    graph = bundle.read(SLIM).graph
    read = read_graph(graph, Path("squeezedet.bundle"))
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    theirs = [t for t in onnx.load_from_string(graph).graph.initializer if t.data_type in floats]
    assert sorted(read.tensors) == sorted(tensor.name for tensor in theirs)
    for tensor in theirs:
        np.testing.assert_array_equal(read.tensors[tensor.name], numpy_helper.to_array(tensor))
    assert len(read.convolutions) == 32  # conv1, ten fire modules, ConvDet


@pytest.mark.shared
def test_published_squeezenet(shared: Path) -> None:
    weights = read_weights(shared / "weights" / "squeezenet_v1_1_fp16.onnx")
    assert len(weights) == 2 * 26
    assert sum(array.size for array in weights.values()) == 1_235_496
    assert weights["conv10.weight"].shape == (1000, 512, 1, 1)


def declares(*dims: int, values: int = 4) -> bytes:
    tensor = numpy_helper.from_array(np.zeros(values, np.float32), "w")
    del tensor.dims[:]
    tensor.dims.extend(dims)
    return model(tensor, biased=False)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no onnx at all" * 100, "not an ONNX file"),
        (b"PK\x03\x04" + b"\0" * 100, "not an ONNX file"),
        (model(biased=False), "the weights 'w' are not in the file"),
        (declares(5), "'w' declares 5 and holds 16 bytes"),
        (declares(1 << 62, 4), "holds 16 bytes"),
        (declares(-1, -4), "holds 16 bytes"),
        (declares(0, 1 << 62, values=0), "holds 0 bytes"),
        (declares(*(1,) * 33, values=1), "more than 32 axes"),
        (b"\x3a\x82\x80\x40" + b"\x0a\x00" * 524_289, "more than 100000 nodes"),
        (b"\x3a\xef\x07\x0a\xec\x07\x0a\xe9\x07" + b"n" * 1001, "a name of 1001 bytes"),
        (b"\x0a\x02hi", "not an ONNX file with a convolution"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.onnx") as caught:
        read_weights(path)
    assert sentence in str(caught.value)


def test_half_precision_as_onnx_itself_writes_it(tmp_path: Path) -> None:
    """``make_tensor`` and the tools above it write the bits of each number into ``int32_data``."""
    path = tmp_path / "half.onnx"
    path.write_bytes(model(helper.make_tensor("w", TensorProto.FLOAT16, WEIGHT.shape, WEIGHT.ravel()), biased=False))
    (found,) = read_weights(path).values()
    np.testing.assert_array_equal(found, WEIGHT.astype(np.float16).astype(np.float32))


def test_weights_stored_in_another_file_are_missed(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(WEIGHT, "w")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="/etc/passwd")
    path = tmp_path / "bad.onnx"
    path.write_bytes(model(tensor, biased=False))
    with pytest.raises(ModelError, match="'w' declares 4x3x2x1 and holds 0 bytes"):
        read_weights(path)


def test_every_cut_is_one_sentence(tmp_path: Path) -> None:
    """After the graph comes only the opset: without it nothing is missing but that."""
    whole = raw()
    path = tmp_path / "cut.onnx"
    taken = [size for size in range(len(whole)) if survives(read_weights, path, whole[:size])]
    assert len(taken) <= 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patch=PATCHES)
def test_changed_bytes(tmp_path: Path, patch: tuple[int, bytes]) -> None:
    survives(read_weights, tmp_path / "changed.onnx", patched(raw(), patch))
