"""Darknet's weights files: the published layout byte by byte, exact lengths, hostile files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.papers.darknet import Header, connected, convolution, local, read, write

LAYERS = [
    convolution("conv1", 3, 4, 3, batch_norm=True),
    convolution("conv2", 4, 2, 1, batch_norm=False),
    local("hidden", 2, 3, 3, locations=4),
    connected("output", 12, 5),
]
FLOATS = (4 * 4 + 108) + (2 + 8) + (3 * 4 + 4 * 3 * 18) + (5 + 60)

# The rate, momentum and decay that the first files had in place of a version.
FIRST_FILES = Header(*struct.unpack("<3i", struct.pack("<3f", 0.0005, 0.9, 0.0005)), seen=7)


def some_arrays() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return {f"{layer.name}.{part}": rng.random(shape, np.float32) for layer in LAYERS for part, shape in layer.parts}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "net.weights", LAYERS, some_arrays())
    return tmp_path / "net.weights"


@pytest.mark.parametrize(
    "header",
    [Header(seen=2**40), Header(0, 1, 0, 64_000), Header(0, 2, 5, 32), FIRST_FILES],
    ids=["0.2", "0.1", "0.2.5", "first"],
)
def test_round_trip(tmp_path: Path, header: Header) -> None:
    path, arrays = tmp_path / "net.weights", some_arrays()
    write(path, LAYERS, arrays, header)
    again, found = read(path, LAYERS)
    assert again == header
    assert list(found) == list(arrays)
    for name, values in arrays.items():
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], values)


@pytest.mark.parametrize(
    ("header", "size"), [(Header(0, 1), 16), (Header(0, 2), 20), (Header(1, 0), 20), (FIRST_FILES, 16)]
)
def test_header_has_64_bits_for_seen_from_version_0_2_on(tmp_path: Path, header: Header, size: int) -> None:
    write(tmp_path / "net.weights", LAYERS, some_arrays(), header)
    assert header.size_bytes == size
    assert (tmp_path / "net.weights").stat().st_size == size + 4 * FLOATS


def test_layout_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "net.weights"
    layer = convolution("conv", 1, 2, 1, batch_norm=True)
    path.write_bytes(struct.pack("<3iq10f", 0, 2, 0, 640, *range(10)))
    header, arrays = read(path, [layer])
    assert header.seen == 640
    assert [a.ravel().tolist() for a in arrays.values()] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert list(arrays) == [f"conv.{part}" for part in ("biases", "scales", "means", "variances", "weights")]


@pytest.mark.parametrize(
    ("version", "weights"), [((0, 1, 0), [[1, 2, 3], [4, 5, 6]]), ((0, 2000, 0), [[1, 3, 5], [2, 4, 6]])]
)
def test_connected_weights_of_the_first_files_are_transposed(
    tmp_path: Path, version: tuple[int, int, int], weights: list[list[int]]
) -> None:
    path = tmp_path / "net.weights"
    path.write_bytes(struct.pack("<4i8f", *version, 0, -1, -2, 1, 2, 3, 4, 5, 6))
    _, arrays = read(path, [connected("fc", 3, 2)])
    assert arrays["fc.biases"].tolist() == [-1, -2]
    assert arrays["fc.weights"].tolist() == weights


@given(size=st.integers(0, 20 + 4 * FLOATS - 1))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "net.weights"
    write(path, LAYERS, some_arrays())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"ends within the header|too short"):
        read(path, LAYERS)


def test_too_short_names_the_first_layer_that_does_not_fit(path: Path) -> None:
    start, end = 20 + 4 * 124, 20 + 4 * 134
    path.write_bytes(path.read_bytes()[: end - 1])
    with pytest.raises(ModelError) as error:
        read(path, LAYERS)
    assert str(error.value) == (
        f"{path}: too short: convolution conv2 (biases 2, weights 2x4x1x1) needs bytes {start} to "
        f"{end}, but the file ends at {end - 1}; this network's file has 1,728 bytes"
    )


def test_too_long_names_the_last_layer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"1 bytes are left over after connected output; .*1,728"):
        read(path, LAYERS)


def test_hostile_files_cost_one_sentence(tmp_path: Path) -> None:
    huge = tmp_path / "huge.weights"
    with huge.open("wb") as file:  # a sparse file: no disk is used, and no memory may be
        file.truncate(2**42)
    with pytest.raises(ModelError, match="too long"):
        read(huge, LAYERS)
    for place in (tmp_path, tmp_path / "missing.weights", tmp_path / "a\0b"):
        with pytest.raises(ModelError, match="no such file"):
            read(place, LAYERS)


@pytest.mark.parametrize(("offset", "value"), [(20, np.nan), (20 + 4 * 12, -1.0), (20 + 4 * 124, np.inf)])
def test_values_that_no_weight_has_are_refused(path: Path, offset: int, value: float) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + 4] = struct.pack("<f", value)
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"(biases|variances) of convolution conv[12]"):
        read(path, LAYERS)


def test_an_array_of_another_shape_is_not_written(tmp_path: Path) -> None:
    arrays = some_arrays() | {"conv2.biases": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"conv2.biases is \(3,\), expected \(2,\)"):
        write(tmp_path / "net.weights", LAYERS, arrays)
    assert not list(tmp_path.iterdir())
