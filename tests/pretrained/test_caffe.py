"""Caffe models, as Google's protobuf writes them and as nobody should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squeezedet.errors import ModelError
from squeezedet.pretrained.read import read_caffemodel

from .caffe_schema import net_parameter
from .hostile import PATCHES, patched, survives

WEIGHT = np.arange(24, dtype=np.float32).reshape(4, 3, 2, 1) / 7
BIAS = np.array([1.5, -2, 0, 3e-9], np.float32)


def fill(blob: Any, values: np.ndarray, *, field: str = "data", legacy: bool = False) -> None:
    getattr(blob, field).extend(values.ravel().tolist())
    if legacy:
        axes = (1,) * (4 - values.ndim) + values.shape
        blob.num, blob.channels, blob.height, blob.width = axes
    else:
        blob.shape.dim.extend(values.shape)


def network(*, packed: bool = True, old: bool = False, field: str = "data") -> bytes:
    """Two layers, the second with weights."""
    net = net_parameter(packed=packed)(name="small")
    layers = net.layers if old else net.layer
    layers.add(name="data", type=5 if old else "Data")
    layer = layers.add(name="conv1", type=4 if old else "Convolution")
    for values in (WEIGHT, BIAS):
        fill(layer.blobs.add(), values, field=field, legacy=old)
    return bytes(net.SerializeToString())


def read(folder: Path, content: bytes) -> dict[str, tuple[np.ndarray, ...]]:
    path = folder / "weights.caffemodel"
    path.write_bytes(content)
    return read_caffemodel(path)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("field", ["data", "double_data"])
def test_layers(tmp_path: Path, packed: bool, field: str) -> None:
    layers = read(tmp_path, network(packed=packed, field=field))
    assert list(layers) == ["conv1"]
    weight, bias = layers["conv1"]
    assert (weight.dtype, bias.dtype) == (np.float32, np.float32)
    np.testing.assert_array_equal(weight, WEIGHT)
    np.testing.assert_array_equal(bias, BIAS)


def test_layers_of_the_first_version_have_four_axes(tmp_path: Path) -> None:
    weight, bias = read(tmp_path, network(old=True))["conv1"]
    np.testing.assert_array_equal(weight, WEIGHT)
    np.testing.assert_array_equal(bias, BIAS.reshape(1, 1, 1, 4))


def test_doubles_too_large_for_float32_become_infinite(tmp_path: Path) -> None:
    net = net_parameter()()
    fill(net.layer.add(name="a").blobs.add(), np.array([1e300, 1.0]), field="double_data")
    np.testing.assert_array_equal(read(tmp_path, net.SerializeToString())["a"][0], [np.inf, 1])


@pytest.mark.shared
def test_published_backbone_of_tiny_ssd(shared: Path) -> None:
    """26 convolutions, 444,371 numbers: conv1, fire2 to fire9, conv10."""
    layers = read_caffemodel(shared / "weights" / "tinyssd_backbone_iter180000.caffemodel")
    assert len(layers) == 26
    assert sum(blob.size for blobs in layers.values() for blob in blobs) == 444_371
    assert [blob.shape for blob in layers["conv1"]] == [(57, 3, 3, 3), (57,)]
    assert [blob.shape for blob in layers["conv10"]] == [(1000, 83, 1, 1), (1000,)]
    weight = layers["fire9/expand3x3"][0]
    assert 0.001 < weight.std() < 1  # numbers of a trained layer, not of a wrong offset


def test_every_cut_is_one_sentence(tmp_path: Path) -> None:
    """The last bytes are weights, so no cut leaves a whole file."""
    whole = network()
    cuts = (whole[:size] for size in range(len(whole)))
    assert not any(survives(read_caffemodel, tmp_path / "w.caffemodel", cut) for cut in cuts)


def blob(*, values: int, dims: tuple[int, ...]) -> bytes:
    net = net_parameter()()
    added = net.layer.add(name="conv1").blobs.add()
    added.data.extend([0.5] * values)
    added.shape.dim.extend(dims)
    return bytes(net.SerializeToString())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff" * 40, "a number that does not end at byte 0 of 40"),
        (b"PK\x03\x04" + b"\0" * 20, "not a Caffe model"),
        (b"\0" * 64, "a field without number"),
        (b"\x0a\x02hi", "no layer in it has any"),
        (b"\xa2\x06\xff\xff\xff\xff\x7f", "a field of 34359738367 bytes where 0 are"),
        (b"\x13\x13", "unknown wire type 3"),
        (blob(values=4, dims=(2, 3)), "'conv1' declares 2x3 and holds 16 bytes"),
        (blob(values=4, dims=(1 << 62, 1 << 62)), "holds 16 bytes"),
        (blob(values=4, dims=(-2, -2)), "holds 16 bytes"),
        (blob(values=4, dims=()), "declares one number and holds 16 bytes"),
        (blob(values=0, dims=(0, 5)), "declares 0x5"),
        (blob(values=1, dims=(1,) * 33), "more than 32 axes"),
        (b"\xa2\x06\x00" * 10_001, "more than 10000 layers"),
        (b"\xa2\x06\x22" + b"\x3a\x00" * 17, "more than 16 blobs"),
        (blob(values=1, dims=(1,)) * 2, "a second layer 'conv1'"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(ModelError, match=r"weights\.caffemodel") as caught:
        read(tmp_path, content)
    assert sentence in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_caffemodel(tmp_path / "missing")
    with pytest.raises(ModelError, match="is a folder"):
        read_caffemodel(tmp_path)
    with pytest.raises(ModelError, match="no layer in it has any"):
        read(tmp_path, b"")
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    with pytest.raises(ModelError, match="more than 64 MB, the limit"):
        read_caffemodel(large)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patch=PATCHES, packed=st.booleans(), old=st.booleans())
def test_changed_bytes(tmp_path: Path, patch: tuple[int, bytes], packed: bool, old: bool) -> None:
    content = patched(network(packed=packed, old=old), patch)
    survives(read_caffemodel, tmp_path / "weights.caffemodel", content)
