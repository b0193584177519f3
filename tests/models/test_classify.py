"""Names of what an image shows."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from compression_table import right
from squeezedet.models.squeezenet import SqueezeNet, SqueezeNetConfig, classify, crop, from_weights, imagenet_classes


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def network(classes: int) -> SqueezeNet:
    torch.manual_seed(0)
    return SqueezeNet(SqueezeNetConfig(version="1.1", classes=classes)).eval()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_names() -> None:
    names = imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    assert (names[134], names[517]) == ("crane, bird", "crane, machine")
    assert (names[638], names[639]) == ("maillot", "maillot, tank suit")
    assert (names[0], names[12], names[999]) == ("tench", "house finch", "toilet tissue")


def test_crop_is_the_middle_of_256() -> None:
    pixels = noise(256, 256)
    np.testing.assert_array_equal(crop(pixels, 224), pixels[16:240, 16:240])
    np.testing.assert_array_equal(crop(pixels, 227), pixels[14:241, 14:241])
    assert crop(noise(30, 400), 227).shape == (227, 227, 3)


def test_likeliest_first() -> None:
    found = classify(network(1000), noise(40, 60), top=3)
    assert [name for name, _ in found] != sorted(name for name, _ in found)
    assert all(name in imagenet_classes() for name, _ in found)
    values = [value for _, value in found]
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] <= values[0] < 1


def test_other_classes_are_numbers() -> None:
    found = classify(network(4), noise(40, 60), top=9)
    assert sorted(name for name, _ in found) == ["0", "1", "2", "3"]
    assert sum(value for _, value in found) == pytest.approx(1)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "first", "five"), [("compressed_SqueezeNet.net", 166, 213), ("squeezenet_v1_1_fp16.onnx", 166, 215)]
)
def test_imagenet_samples(shared: Path, weights: str, first: int, five: int) -> None:
    """Of 250 images, as the published weights did in an independent run."""
    folder = shared / "data" / "imagenet_samples"
    counts = right(from_weights(shared / "weights" / weights), folder)
    assert abs(counts[0] - first) <= 1
    assert abs(counts[1] - five) <= 1
    assert counts[2] == 250


@pytest.mark.shared
def test_names_are_those_of_the_samples(shared: Path) -> None:
    rows = table(shared / "data" / "imagenet_samples" / "classes.tsv")
    first_words = [name.partition(",")[0] for name in imagenet_classes()]
    assert first_words == [row["name"].replace("_", " ") for row in rows]
