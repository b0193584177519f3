"""The published SqueezeNets through our container: not a bit of their weights changes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from squeezedet.coding import container
from squeezedet.compression.encode import encode_classifier
from squeezedet.compression.layers import kernels
from squeezedet.compression.pipeline import Pipeline, Settings
from squeezedet.compression.source import Source, open_source
from squeezedet.detectors.classify import classify
from squeezedet.detectors.squeezenet import SqueezeNet, SqueezeNetConfig, from_weights
from squeezedet.media.images import read_image


def read_back(content: bytes, folder: Path) -> SqueezeNet:
    """The network of a container: its graph is one of ONNX."""
    card, graph = container.unpack(content, "x")
    path = folder / "squeezenet.onnx"
    path.write_bytes(graph)
    return from_weights(path, SqueezeNetConfig(**json.loads(card)["config"]))


def same(one: SqueezeNet, other: SqueezeNet) -> bool:
    weights = other.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.state_dict().items())


@pytest.mark.slow
def test_a_small_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SqueezeNet(SqueezeNetConfig(version="1.1", classes=5)).eval()
    with torch.no_grad():
        for layer in kernels(network).values():
            layer.bias.normal_()  # the exporter leaves out what is zero
    bits = dict.fromkeys(kernels(network), 4)
    settings = Settings(density={"conv10": 0.2}, bits=bits)
    done = Pipeline(Source(network=network, path=Path("x")), settings).run("small")
    assert [stage.name for stage in done.stages] == ["float32", "pruned", "shared", "coded"]
    assert done.stages[-1].bytes == len(done.encoded.content) < done.stages[0].bytes / 6
    assert done.encoded.bundle is None
    found = read_back(done.encoded.content, tmp_path)
    assert (found.conv10.weight != 0).sum() == 512
    assert len(found.fire9.expand3x3.weight.unique()) <= 16
    assert torch.equal(found.fire2.squeeze1x1.bias, network.fire2.squeeze1x1.bias)
    assert not same(network, found)


def counts(network: SqueezeNet, folder: Path) -> tuple[int, int]:
    with (folder / "labels.tsv").open(encoding="utf-8") as file:
        labels = list(csv.DictReader(file, delimiter="\t"))
    first = five = 0
    for label in labels:
        names = [n for n, _ in classify(network, read_image(folder / label["file"]).pixels)]
        wanted = label["name"].replace("_", " ")
        first += wanted == names[0]
        five += wanted in names
    return first, five


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "wanted"),
    [("compressed_SqueezeNet.net", (166, 213)), ("squeezenet_v1_1_fp16.onnx", (166, 215))],
)
def test_imagenet_samples_through_the_container(
    shared: Path, tmp_path: Path, weights: str, wanted: tuple[int, int]
) -> None:
    """v1.0 in its own 255 values a layer; v1.1, which is not compressed, as it is."""
    source = open_source(str(shared / "weights" / weights))
    assert isinstance(source.network, SqueezeNet)
    if weights.endswith(".net"):
        bits = dict.fromkeys(kernels(source.network), 8)
        content = Pipeline(source, Settings(density={}, bits=bits)).run("v1.0").encoded.content
        assert len(content) < 560_000  # Huffman on the published symbols: 556,569
    else:
        content = encode_classifier(source.network, source, "v1.1", {}).content
    found = read_back(content, tmp_path)
    assert same(source.network, found)
    assert counts(found, shared / "data" / "imagenet_samples") == wanted
