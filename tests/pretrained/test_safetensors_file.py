"""safetensors files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from safetensors.numpy import save

from squeezedet.errors import ModelError
from squeezedet.pretrained.read import read_safetensors

from .hostile import PATCHES, patched, survives

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 8


def written(header: object, content: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def tensor(dtype: str, shape: list[int], size: int) -> dict[str, object]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tensors(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save({"w": WEIGHT.astype(dtype)}))
    found = read_safetensors(path)
    assert found["w"].dtype == np.float32
    np.testing.assert_array_equal(found["w"], WEIGHT)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"short", "not a safetensors file"),
        (b"PK\x03\x04" * 100, "its header is too large"),
        (struct.pack("<Q", 1 << 60) + b"{}", "its header is too large"),
        (struct.pack("<Q", 100) + b"{}", "not a safetensors file that can be read"),
        (written(tensor("F32", [1 << 62, 4], 16), bytes(16)), "can be read"),
        (written(tensor("F32", [4], 1 << 40)), "can be read"),
        (written(tensor("I32", [4], 16), bytes(16)), "'w' holds int32, not floats"),
        (written([]), "can be read"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.safetensors") as caught:
        read_safetensors(path)
    assert sentence in str(caught.value)


def test_every_cut_is_one_sentence(tmp_path: Path) -> None:
    whole = save({"w": WEIGHT})
    path = tmp_path / "cut.safetensors"
    assert not any(survives(read_safetensors, path, whole[:n]) for n in range(len(whole)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patch=PATCHES)
def test_changed_bytes(tmp_path: Path, patch: tuple[int, bytes]) -> None:
    path = tmp_path / "changed.safetensors"
    survives(read_safetensors, path, patched(save({"w": WEIGHT}), patch))
