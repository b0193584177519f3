"""Darknet's weights files: the published layout byte by byte, exact lengths, hostile files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from squeezedet.errors import ModelError
from squeezedet.papers.darknet import Convolution, LocallyConnected2d, load_weights, stored_parts

from .weights_file import write_weights

FLOATS = (4 * 4 + 108) + (2 + 8) + (3 * 4 + 4 * 3 * 18) + (5 + 60)

# The rate, momentum and decay that the first files had in place of a version.
FIRST_FILES = struct.unpack("<3i", struct.pack("<3f", 0.0005, 0.9, 0.0005))


def new_network() -> nn.Module:
    network = nn.Sequential()
    network.add_module("conv1", Convolution(3, 4, 3, batch_norm=True))
    network.add_module("conv2", Convolution(4, 2, 1, batch_norm=False))
    network.add_module("hidden", LocallyConnected2d(2, 3, 3, (2, 2)))
    network.add_module("output", nn.Linear(12, 5))
    with torch.no_grad():
        for _, tensor, _ in stored_parts(network):
            tensor.uniform_()
    return network


NETWORK = new_network()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_weights(tmp_path / "net.weights", NETWORK)
    return tmp_path / "net.weights"


@pytest.mark.parametrize(
    ("version", "seen", "size"),
    [
        ((0, 1, 0), "<i", 16),
        ((0, 2, 0), "<q", 20),
        ((0, 2, 5), "<q", 20),
        ((1, 0, 0), "<q", 20),
        (FIRST_FILES, "<i", 16),
    ],
    ids=["0.1", "0.2", "0.2.5", "1.0", "first"],
)
def test_every_version_comes_back(tmp_path: Path, version: tuple[int, int, int], seen: str, size: int) -> None:
    path, other = tmp_path / "net.weights", new_network()
    write_weights(path, NETWORK, version, seen)
    assert path.stat().st_size == size + 4 * FLOATS
    load_weights(other, path)
    for mine, theirs in zip(stored_parts(NETWORK), stored_parts(other), strict=True):
        assert torch.equal(mine.tensor, theirs.tensor), mine.name


def test_layout_byte_by_byte(tmp_path: Path) -> None:
    path, layer = tmp_path / "net.weights", nn.Sequential(Convolution(1, 2, 1, batch_norm=True))
    path.write_bytes(struct.pack("<3iq10f", 0, 2, 0, 640, *range(10)))
    load_weights(layer, path)
    parts = stored_parts(layer)
    assert [part.tensor.flatten().tolist() for part in parts] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [part.name.split()[0] for part in parts] == ["biases", "scales", "means", "variances", "weights"]


@pytest.mark.parametrize(
    ("version", "weights"), [((0, 1, 0), [[1, 2, 3], [4, 5, 6]]), ((0, 2000, 0), [[1, 3, 5], [2, 4, 6]])]
)
def test_connected_weights_of_the_first_files_are_transposed(
    tmp_path: Path, version: tuple[int, int, int], weights: list[list[int]]
) -> None:
    path, layer = tmp_path / "net.weights", nn.Linear(3, 2)
    path.write_bytes(struct.pack("<4i8f", *version, 0, -1, -2, 1, 2, 3, 4, 5, 6))
    load_weights(layer, path)
    assert layer.bias.tolist() == [-1, -2]
    assert layer.weight.tolist() == weights


@given(size=st.integers(0, 20 + 4 * FLOATS - 1))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "net.weights"
    write_weights(path, NETWORK)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"ends within the header|too short"):
        load_weights(new_network(), path)


def test_too_short_names_the_first_array_that_does_not_fit(path: Path) -> None:
    start, end = 20 + 4 * 126, 20 + 4 * 134
    path.write_bytes(path.read_bytes()[: end - 1])
    with pytest.raises(ModelError) as error:
        load_weights(new_network(), path)
    assert str(error.value) == (
        f"{path}: too short: weights of conv2 (2x4x1x1) need bytes {start} to {end}, but the file ends at {end - 1}; "
        "this network's file has 1,728 bytes"
    )


def test_too_long_names_the_last_layer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"1 bytes are left over after weights of output; .*1,728"):
        load_weights(new_network(), path)


def test_hostile_files_cost_one_sentence(tmp_path: Path) -> None:
    huge = tmp_path / "huge.weights"
    with huge.open("wb") as file:  # a sparse file: no disk is used, and no memory may be
        file.truncate(2**42)
    with pytest.raises(ModelError, match="too long"):
        load_weights(new_network(), huge)
    for place in (tmp_path, tmp_path / "missing.weights", tmp_path / "a\0b"):
        with pytest.raises(ModelError, match=r"folder|[Nn]o such file|null"):
            load_weights(new_network(), place)


@pytest.mark.parametrize(("offset", "value"), [(20, np.nan), (20 + 4 * 12, -1.0), (20 + 4 * 124, np.inf)])
def test_values_that_no_weight_has_are_refused(path: Path, offset: int, value: float) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + 4] = struct.pack("<f", value)
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"(biases|variances) of conv[12]"):
        load_weights(new_network(), path)
