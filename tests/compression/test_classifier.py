"""The published SqueezeNets through our container: not a bit of their weights changes."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from squeezedet.coding import container
from squeezedet.compression.encode import CompressionSource, encode_classifier, open_source
from squeezedet.compression.pipeline import Pipeline, Settings
from squeezedet.compression.prune import kernels
from squeezedet.errors import ModelError
from squeezedet.media.images import read_image
from squeezedet.models.classify import classify
from squeezedet.models.squeezenet import SqueezeNet, SqueezeNetConfig, from_weights
from squeezedet.pretrained.classifier_file import FORMAT, KIND


def read_back(content: bytes, folder: Path) -> SqueezeNet:
    """The network of a container; its card says which."""
    path = folder / "squeezenet.sqz"
    path.write_bytes(content)
    return from_weights(path)


def same(one: SqueezeNet, other: SqueezeNet) -> bool:
    weights = other.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.state_dict().items())


@pytest.mark.slow
def test_a_small_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SqueezeNet(SqueezeNetConfig(version="1.1", classes=5)).eval()
    nn.init.normal_(network.fire2.squeeze1x1.bias)  # the others are zero: the exporter omits them
    bits = dict.fromkeys(kernels(network), 4)
    settings = Settings(density={"conv10": 0.2}, bits=bits)
    done = Pipeline(CompressionSource(network=network, path=Path("x")), settings).run("small")
    assert [stage.name for stage in done.stages] == ["float32", "pruned", "shared", "coded"]
    assert done.stages[-1].size_bytes == len(done.encoded.content) < done.stages[0].size_bytes / 6
    assert done.encoded.bundle is None
    found = read_back(done.encoded.content, tmp_path)
    assert (found.conv10.weight != 0).sum() == 512
    assert len(found.fire9.expand3x3.weight.unique()) <= 16
    assert torch.equal(found.fire2.squeeze1x1.bias, network.fire2.squeeze1x1.bias)
    assert not network.conv10.bias.any()
    assert not same(network, found)


@pytest.mark.slow
@pytest.mark.parametrize("bypass", ["simple", "complex"])
def test_a_classifier_is_compressed_again(
    tmp_path: Path, bypass: Literal["simple", "complex"]
) -> None:
    """The card tells the bypass, whose convolutions stand between the others."""
    torch.manual_seed(0)
    config = SqueezeNetConfig(classes=3, bypass=bypass, incr_e=16, base_e=16)
    network = SqueezeNet(config).eval()
    path = tmp_path / "a.sqz"
    source = CompressionSource(network=network, path=path, licence="CC0", data="noise")
    path.write_bytes(encode_classifier(network, source, "a", {}).content)
    again = open_source(str(path))
    assert (again.licence, again.data) == ("CC0", "noise")
    assert again.network.config == config
    assert isinstance(again.network, SqueezeNet)
    assert same(network, again.network)


def packed(card: object) -> bytes:
    """A container of a card and hardly a graph."""
    return container.pack(json.dumps(card).encode(), b"no graph", {})


GOOD = {"format": FORMAT, "network": KIND, "config": {}, "graph_sha256": "0"}


@pytest.mark.parametrize(
    ("card", "sentence"),
    [
        ([], "holds no classifier"),
        ({"format": "squeezedet bundle 1"}, "holds no classifier"),
        ({**GOOD, "network": "resnet"}, "holds no classifier"),
        (GOOD, "checksum is not the card's"),
        ({**GOOD, "graph_sha256": hashlib.sha256(b"no graph").hexdigest()}, "not an ONNX file"),
    ],
)
def test_other_containers(tmp_path: Path, card: object, sentence: str) -> None:
    path = tmp_path / "x.sqz"
    path.write_bytes(packed(card))
    with pytest.raises(ModelError, match=rf"x\.sqz: .*{sentence}"):
        from_weights(path)


@pytest.mark.parametrize(
    "config",
    [None, 3, {"version": "9"}, {"freq": 0}, {"classes": -1}, {"base_e": "x"}, {"colour": 1}],
)
def test_a_card_that_describes_no_network(
    tmp_path: Path, config: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.sqz"
    path.write_bytes(packed({**GOOD, "config": config}))
    monkeypatch.setattr("squeezedet.models.squeezenet.read_weights", lambda path: {})
    with pytest.raises(ModelError, match=r"x\.sqz: its card describes no SqueezeNet"):
        from_weights(path)


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
