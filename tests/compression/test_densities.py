"""Densities and bits of each layer from a number or a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from squeezedet.compression.prune import read_numbers, uniform
from squeezedet.errors import UsageError

LAYERS = ("conv1", "fire2.squeeze1x1", "fire2.expand3x3", "conv10")


def test_uniform_leaves_what_sees_the_pixels() -> None:
    net = nn.Sequential(nn.Conv2d(8, 4, 1), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(9, 2))
    assert uniform(net, 0.3) == {"0": 0.3, "3": 0.3}
    assert uniform(net, 1.0) == {}


def test_files(tmp_path: Path) -> None:
    toml = tmp_path / "density.toml"
    toml.write_text('"*" = 0.5\nconv1 = 1\n[fire2]\n"expand*" = 0.33\n')
    wanted = dict(zip(LAYERS, (1, 0.5, 0.33, 0.5), strict=True))
    assert read_numbers(toml, LAYERS, 0, 1) == wanted
    json = tmp_path / "density.json"
    json.write_text('{"fire2.*": 0.2}')
    found = read_numbers(json, LAYERS, 0, 1)
    assert found == {"fire2.squeeze1x1": 0.2, "fire2.expand3x3": 0.2}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("conv11 = 0.5", "no layer 'conv11'"),
        ("conv1 = 0", "above 0 to 1, not 0"),
        ("conv1 = 1.5", "above 0 to 1, not 1.5"),
        ("conv1 = true", "not True"),
        ("conv1 = nan", "not nan"),
        ("conv1 = [", "neither TOML nor JSON"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "d.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_numbers(path, LAYERS, 0, 1)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    with pytest.raises(UsageError, match="cannot be read"):
        read_numbers(path, LAYERS, 0, 1)
    path.write_text("[1]")
    with pytest.raises(UsageError, match="table of layers"):
        read_numbers(path, LAYERS, 0, 1)
