"""One kind of names, whatever the format; of archives nothing is believed, nothing is executed."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from safetensors.numpy import save, save_file

from squeezedet.errors import ModelError
from squeezedet.pretrained.read import MAX_BYTES, check_fit, read_npz, read_safetensors, read_weights

from .caffe_schema import net_parameter
from .hostile import PATCHES, patched, survives

WEIGHT, BIAS = np.arange(48, dtype=np.float32).reshape(4, 3, 2, 2) / 8, np.zeros(4, np.float32)

# ------------------------------------------------------------ names


def test_names_of_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"fire2/squeeze1x1.weight": WEIGHT, "conv1.bias": BIAS})
    assert sorted(read_weights(tmp_path / "a.npz")) == ["conv1.bias", "fire2.squeeze1x1.weight"]
    save_file({"fire9.expand3x3.bias": BIAS}, tmp_path / "a.SafeTensors")
    assert list(read_weights(tmp_path / "a.SafeTensors")) == ["fire9.expand3x3.bias"]


def test_names_of_caffe_models(tmp_path: Path) -> None:
    """Deep Compression's names, an old bias of four axes, and a blob that nobody knows."""
    net = net_parameter()()
    layer = net.layer.add(name="fire3/conv3x3_2")
    for shape in ((4, 3, 2, 2), (1, 1, 1, 4), (2,)):
        blob = layer.blobs.add()
        blob.shape.dim.extend(shape)
        blob.data.extend([0.0] * int(np.prod(shape)))
    path = tmp_path / "old.caffemodel"
    path.write_bytes(net.SerializeToString())
    assert {name: a.shape for name, a in read_weights(path).items()} == {
        "fire3.expand3x3.weight": (4, 3, 2, 2),
        "fire3.expand3x3.bias": (4,),
        "fire3.expand3x3.blob2": (2,),
    }


@pytest.mark.shared
def test_published_files_have_the_same_names(shared: Path) -> None:
    names = [
        list(read_weights(shared / "weights" / name))
        for name in (
            "compressed_SqueezeNet.net",
            "squeezenet_v1_0_imagenet.npz",
            "squeezenet_v1_1_fp16.onnx",
            "tinyssd_backbone_iter180000.caffemodel",
        )
    ]
    assert names[0] == names[1] == names[2] == names[3]
    assert len(names[0]) == 52


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.pt: not a known kind .* \.net, \.onnx"):
        read_weights(tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"model\.onnx: no such file"):
        read_weights(tmp_path / "model.onnx")
    large = tmp_path / "large.caffemodel"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ModelError, match="more than 64 MB, the limit"):
        read_weights(large)


# ------------------------------------------------------------ which tensor is wrong, and what was expected

WANTED = {"conv1.weight": (2, 3), "conv1.bias": (2,)}
PATH = Path("file.npz")


def given_tensors(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    arrays = {name: np.zeros(shape, np.float32) for name, shape in WANTED.items()}
    changed = {name.replace("__", "."): array for name, array in changes.items()}
    return {n: a for n, a in (arrays | changed).items() if a is not None}


def test_what_fits() -> None:
    check_fit(WANTED, given_tensors(), PATH)
    check_fit(WANTED, given_tensors(conv10__weight=np.zeros(1)), PATH, left_over=("conv10",))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            given_tensors(conv1__weight=np.zeros((3, 2))),
            "file.npz: expected conv1.weight of shape 2x3, but in the file it is 3x2",
        ),
        (
            given_tensors(conv1__bias=None),
            "file.npz: expected conv1.bias of shape 2, but the file has only 'conv1.weight'",
        ),
        ({}, "file.npz: expected conv1.weight of shape 2x3, but the file has only nothing"),
        (given_tensors(conv1__bias=np.array([0, np.nan])), "conv1.bias holds infinity, or what is no"),
        (given_tensors(fc__weight=np.zeros(1)), "the network has no place for 'fc.weight'"),
    ],
)
def test_what_does_not_fit(arrays: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_fit(WANTED, arrays, PATH)
    assert sentence in str(caught.value)


def test_a_thousand_names_are_not_listed() -> None:
    many = given_tensors() | {f"x{i}" * 100: np.zeros(1) for i in range(1000)}
    with pytest.raises(ModelError, match="and 997 more") as caught:
        check_fit(WANTED, many, PATH)
    assert len(str(caught.value)) < 400


# ------------------------------------------------------------ npz and safetensors

HEADER = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(header: str, content: bytes = b"") -> bytes:
    """An archive of one array with this header."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        text = header.encode() + b"\n"
        packed.writestr("w.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content)
    return buffer.getvalue()


def written(header: object, content: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def tensor(dtype: str, shape: list[int], size: int) -> dict[str, object]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}


def read(folder: Path, name: str, content: bytes) -> dict[str, np.ndarray]:
    path = folder / name
    path.write_bytes(content)
    return read_weights(path)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_arrays(tmp_path: Path, dtype: str) -> None:
    arrays = {"a": WEIGHT.astype(dtype), "b": np.asfortranarray(WEIGHT), "c": np.float32(3)}
    found = read(tmp_path, "a.npz", archive(**arrays))
    assert {a.dtype for a in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found["a"], WEIGHT)
    np.testing.assert_array_equal(found["b"], WEIGHT)
    assert found["c"] == 3


def test_compressed_archives(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, w=WEIGHT)
    np.testing.assert_array_equal(read(tmp_path, "a.npz", buffer.getvalue())["w"], WEIGHT)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tensors(tmp_path: Path, dtype: type) -> None:
    found = read(tmp_path, "a.safetensors", save({"w": WEIGHT.astype(dtype)}))
    assert found["w"].dtype == np.float32
    np.testing.assert_array_equal(found["w"], WEIGHT)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("bad.npz", b"no archive", "not an npz file, or a damaged one: File is not a zip file"),
        ("bad.npz", archive(w=np.array([{}], object)), "'w.npy' holds object, not floats"),
        ("bad.npz", archive(w=np.arange(3)), "'w.npy' holds int64, not floats"),
        ("bad.npz", npy(HEADER % ("<f4", (1 << 40,)), b"1234"), "of (1099511627776,) and holds 4 bytes"),
        ("bad.npz", npy(HEADER % ("<f4", (-1, -1)), b"1234"), "of (-1, -1) and holds 4 bytes"),
        ("bad.npz", npy(HEADER % ("<f4", (0, 1 << 70))), "a damaged one"),
        ("bad.npz", npy("(" * 5000), "a damaged one"),
        ("bad.npz", npy("__import__('os').abort()"), "a damaged one"),
        ("bad.npz", npy(HEADER % ("<f4", (MAX_BYTES // 4,)), bytes(MAX_BYTES)), "unpacks to more than"),
        ("bad.npz", b"PK\x01\x02" * 10_001, "more than 10000 arrays"),
        ("bad.safetensors", b"short", "not a safetensors file"),
        ("bad.safetensors", b"PK\x03\x04" * 100, "its header is too large"),
        ("bad.safetensors", struct.pack("<Q", 1 << 60) + b"{}", "its header is too large"),
        ("bad.safetensors", struct.pack("<Q", 100) + b"{}", "not a safetensors file that can be read"),
        ("bad.safetensors", written(tensor("F32", [1 << 62, 4], 16), bytes(16)), "can be read"),
        ("bad.safetensors", written(tensor("F32", [4], 1 << 40)), "can be read"),
        ("bad.safetensors", written(tensor("I32", [4], 16), bytes(16)), "'w' holds int32, not floats"),
        ("bad.safetensors", written([]), "can be read"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(tmp_path, name, content)
    assert name in str(caught.value) and sentence in str(caught.value)


def test_sizes_that_the_directory_makes_up(tmp_path: Path) -> None:
    """The directory says 16 numbers, and so does the array; there are 12."""
    content = bytearray(archive(w=WEIGHT.ravel()[:12].reshape(4, 3)))
    at = content.rindex(b"PK\x01\x02") + 24  # uncompressed size
    (size,) = struct.unpack_from("<I", content, at)
    struct.pack_into("<I", content, at, size + 16)
    with pytest.raises(ModelError, match=r"w\.npy"):
        read(tmp_path, "bad.npz", bytes(content).replace(b"(4, 3)", b"(4, 4)"))


FORMATS = [(read_npz, archive(w=WEIGHT)), (read_safetensors, save({"w": WEIGHT}))]


@pytest.mark.parametrize(("reader", "whole"), FORMATS)
def test_every_cut_is_one_sentence(tmp_path: Path, reader: Callable[[Path], Any], whole: bytes) -> None:
    cuts = (whole[:size] for size in range(len(whole)))
    assert not any(survives(reader, tmp_path / "cut", cut) for cut in cuts)


@pytest.mark.parametrize(("reader", "whole"), FORMATS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patch=PATCHES)
def test_changed_bytes(tmp_path: Path, reader: Callable[[Path], Any], whole: bytes, patch: tuple[int, bytes]) -> None:
    survives(reader, tmp_path / "changed", patched(whole, patch))
