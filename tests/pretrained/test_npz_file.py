"""Archives of NumPy arrays: nothing is believed, nothing is executed."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from squeezedet.errors import ModelError
from squeezedet.pretrained.read import NPZ_MAX_BYTES, read_npz

from .hostile import PATCHES, patched, survives

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 8


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(header: str, content: bytes = b"", *, name: str = "w.npy") -> bytes:
    """An archive of one array with this header."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        text = header.encode() + b"\n"
        packed.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content)
    return buffer.getvalue()


def read(folder: Path, content: bytes) -> dict[str, np.ndarray]:
    path = folder / "weights.npz"
    path.write_bytes(content)
    return read_npz(path)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_arrays(tmp_path: Path, dtype: str) -> None:
    arrays = {"a": WEIGHT.astype(dtype), "b": np.asfortranarray(WEIGHT), "c": np.float32(3)}
    found = read(tmp_path, archive(**arrays))
    assert {a.dtype for a in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found["a"], WEIGHT)
    np.testing.assert_array_equal(found["b"], WEIGHT)
    assert found["c"] == 3


def test_compressed_archives(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, w=WEIGHT)
    np.testing.assert_array_equal(read(tmp_path, buffer.getvalue())["w"], WEIGHT)


HEADER = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no archive", "not an npz file, or a damaged one: File is not a zip file"),
        (archive(w=np.array([{}], object)), "'w.npy' holds object, not floats"),
        (archive(w=np.arange(3)), "'w.npy' holds int64, not floats"),
        (npy(HEADER % ("<f4", (1 << 40,)), b"1234"), "of (1099511627776,) and holds 4 bytes"),
        (npy(HEADER % ("<f4", (-1, -1)), b"1234"), "of (-1, -1) and holds 4 bytes"),
        (npy(HEADER % ("<f4", (0, 1 << 70))), "a damaged one"),
        (npy("(" * 5000), "a damaged one"),
        (npy("__import__('os').abort()"), "a damaged one"),
        (npy(HEADER % ("<f4", (NPZ_MAX_BYTES // 4,)), bytes(NPZ_MAX_BYTES)), "unpacks to more than"),
        (b"PK\x01\x02" * 10_001, "more than 10000 arrays"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(ModelError, match=r"weights\.npz") as caught:
        read(tmp_path, content)
    assert sentence in str(caught.value)


def test_sizes_that_the_directory_makes_up(tmp_path: Path) -> None:
    """The directory says 16 numbers, and so does the array; there are 12."""
    content = bytearray(archive(w=WEIGHT))
    at = content.rindex(b"PK\x01\x02") + 24  # uncompressed size
    (size,) = struct.unpack_from("<I", content, at)
    struct.pack_into("<I", content, at, size + 16)
    with pytest.raises(ModelError, match=r"w\.npy"):
        read(tmp_path, bytes(content).replace(b"(4, 3)", b"(4, 4)"))


def test_every_cut_is_one_sentence(tmp_path: Path) -> None:
    whole = archive(w=WEIGHT)
    cuts = (whole[:size] for size in range(len(whole)))
    assert not any(survives(read_npz, tmp_path / "cut.npz", cut) for cut in cuts)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patch=PATCHES)
def test_changed_bytes(tmp_path: Path, patch: tuple[int, bytes]) -> None:
    survives(read_npz, tmp_path / "changed.npz", patched(archive(w=WEIGHT), patch))
