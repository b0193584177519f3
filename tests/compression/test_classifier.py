"""The published SqueezeNets through our bundle: not a bit of their weights changes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from compression_table import right
from squeezedet.compression.pipeline import CompressionSource, Pipeline, classifier_bundle, encode, open_source
from squeezedet.compression.prune import kernels
from squeezedet.errors import ModelError
from squeezedet.models.squeezenet import SqueezeNet, SqueezeNetConfig, from_weights
from squeezedet.preprocess import InputRule
from squeezedet.runtime import bundle
from squeezedet.runtime.card import CLASSIFIER, Card
from squeezedet.runtime.detector import load


def read_back(content: bytes, folder: Path) -> SqueezeNet:
    """The network of a bundle; its card says which."""
    path = folder / "squeezenet.bundle"
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
    pipeline = Pipeline(CompressionSource(network=network, path=Path("x")), {"conv10": 0.2}, bits)
    encoded, stages = pipeline.run_all("small"), pipeline.stages
    assert [stage.name for stage in stages] == ["float32", "pruned", "shared", "coded"]
    assert stages[-1].size_bytes == len(encoded.content) < stages[0].size_bytes / 6
    assert encoded.bundle.card.task == "classify"
    found = read_back(encoded.content, tmp_path)
    assert (found.conv10.weight != 0).sum() == 512
    assert len(found.fire9.expand3x3.weight.unique()) <= 16
    assert torch.equal(found.fire2.squeeze1x1.bias, network.fire2.squeeze1x1.bias)
    assert not network.conv10.bias.any()
    assert not same(network, found)


@pytest.mark.slow
@pytest.mark.parametrize("bypass", ["simple", "complex"])
def test_a_classifier_is_compressed_again(tmp_path: Path, bypass: Literal["simple", "complex"]) -> None:
    """The card tells the bypass, whose convolutions stand between the others."""
    torch.manual_seed(0)
    config = SqueezeNetConfig(classes=3, bypass=bypass, incr_e=16, base_e=16)
    network = SqueezeNet(config).eval()
    path = tmp_path / "a.bundle"
    source = CompressionSource(network=network, path=path, licence="CC0", data="noise")
    path.write_bytes(encode(classifier_bundle(network, source, "a", {})).content)
    again = open_source(str(path))
    assert (again.licence, again.data) == ("CC0", "noise")
    assert again.network.config == config
    assert isinstance(again.network, SqueezeNet)
    assert same(network, again.network)


GOOD = Card(
    name="x",
    detector=CLASSIFIER,
    task="classify",
    classes=(),
    input=InputRule(227, 227, fixed=True),
    parameters=1,
    licence="CC0",
    data="none",
    training={"config": {}},
    results={},
    opset=18,
    graph_sha256="",
)


def write(path: Path, card: Card) -> Path:
    """A bundle of a card and a graph of one convolution."""
    onnx = pytest.importorskip("onnx")
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1, 1, 1, 1], [1.0])
    ports = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 1, 8, 8]) for n in "xy"]
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", ports[:1], ports[1:], [weight])
    content = onnx.helper.make_model(graph).SerializeToString()
    digest = hashlib.sha256(content).hexdigest()
    bundle.write(path, bundle.Bundle(replace(card, graph_sha256=digest), content))
    return path


def test_a_bundle_of_something_else(tmp_path: Path) -> None:
    for card in (replace(GOOD, task="detect", classes=("a",)), replace(GOOD, detector="resnet")):
        with pytest.raises(ModelError, match=r"x\.bundle: holds no classifier"):
            from_weights(write(tmp_path / "x.bundle", card))
    with pytest.raises(ModelError, match="is no detector but classifies"):
        load(write(tmp_path / "x.bundle", GOOD))


def test_a_classifier_of_squeezedet_0_1() -> None:
    """The file was written by its ``compress``, the checksum is of the weights that it then read back."""
    path = Path(__file__).with_name("classifier.sqz")
    source = open_source(str(path))
    assert isinstance(source.network, SqueezeNet)
    assert source.licence == "CC0"
    assert source.network.config == SqueezeNetConfig(version="1.1", classes=3, base_e=16, incr_e=8)
    weights = b"".join(value.numpy().tobytes() for value in source.network.state_dict().values())
    assert hashlib.sha256(weights).hexdigest() == "abb340f175d1fd9d25fb2e03367e74cb2c38621d1af9f6a73387618ca854a256"
    card = bundle.read_card(path)
    assert Card.from_json(card.to_json().encode(), "x.bundle") == card
    with pytest.raises(ModelError, match="missing or unknown fields"):
        Card.from_json(b'{"format": "squeezedet classifier 1"}', "x.sqz")


@pytest.mark.parametrize(
    "config", [None, 3, {"version": "9"}, {"freq": 0}, {"classes": -1}, {"base_e": "x"}, {"colour": 1}]
)
def test_a_card_that_describes_no_network(tmp_path: Path, config: object) -> None:
    path = write(tmp_path / "x.bundle", replace(GOOD, training={"config": config}))
    with pytest.raises(ModelError, match=r"x\.bundle: its card describes no SqueezeNet"):
        from_weights(path)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "wanted"), [("compressed_SqueezeNet.net", (166, 213)), ("squeezenet_v1_1_fp16.onnx", (166, 215))]
)
def test_imagenet_samples_through_the_bundle(
    shared: Path, tmp_path: Path, weights: str, wanted: tuple[int, int]
) -> None:
    """v1.0 in its own 255 values a layer; v1.1, which is not compressed, as it is."""
    source = open_source(str(shared / "weights" / weights))
    assert isinstance(source.network, SqueezeNet)
    if weights.endswith(".net"):
        bits = dict.fromkeys(kernels(source.network), 8)
        content = Pipeline(source, {}, bits).run_all("v1.0").content
        assert len(content) < 560_000  # Huffman on the published symbols: 556,569
    else:
        content = encode(classifier_bundle(source.network, source, "v1.1", {})).content
    found = read_back(content, tmp_path)
    assert same(source.network, found)
    assert right(found, shared / "data" / "imagenet_samples")[:2] == wanted
