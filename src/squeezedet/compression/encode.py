"""What is compressed, and from a network to the bytes of a bundle with coded weights."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from squeezedet.coding.tensor import MAX_SIZE, TensorSummary, describe, encode_tensor
from squeezedet.exporting.bundle import OPSET, TRAINING, UNKNOWN, to_onnx
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezenet import SqueezeNet, from_weights
from squeezedet.preprocess import InputRule
from squeezedet.pretrained.onnx_file import read_graph
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.card import Card
from squeezedet.training import checkpoint
from squeezedet.training.checkpoint import detector_of_bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionSource:
    """A network with its weights, and what is known of it.

    Attributes:
        network: in evaluation mode, batch normalization folded into its kernels: these are what is stored, so these are
            what is pruned and shared.
        path: where it comes from.
        licence: of the weights.
        data: what they were trained on.
        training: how, as a card says it.
    """

    network: DetectionNetwork | SqueezeNet
    path: Path
    licence: str = UNKNOWN
    data: str = UNKNOWN
    training: Mapping[str, Any] = field(default_factory=dict)


def open_source(name: str) -> CompressionSource:
    """Read what shall be compressed.

    Args:
        name: of a shipped model; or the path of a bundle, of a checkpoint, or of the weights of a SqueezeNet (.onnx,
            .net, .npz, .caffemodel, .safetensors).

    Raises:
        UsageError: there is no such file.
        ModelError: it cannot be used.
    """
    path = bundle.find(name)
    if checkpoint.is_ours(path):
        detector, saved = checkpoint.read_detector(path)
        training = {name: saved.metadata[key] for name, key in TRAINING.items() if key in saved.metadata}
        return CompressionSource(network=detector.folded(), path=path, training=training)
    if path.suffix == ".npz" or not bundle.is_bundle(path):
        return CompressionSource(network=from_weights(path), path=path)
    model = bundle.read(path)
    card = model.card
    if card.task == "classify":
        return CompressionSource(network=from_weights(path), path=path, licence=card.licence, data=card.data)
    network = detector_of_bundle(model, path)
    return CompressionSource(network=network, path=path, licence=card.licence, data=card.data, training=card.training)


def classifier_bundle(
    network: SqueezeNet, source: CompressionSource, name: str, compression: Mapping[str, Any]
) -> Bundle:
    """A SqueezeNet as a graph from (1, 3, side, side) RGB pixels to logits, with a card that names the network."""
    side = network.config.layout.input_px
    graph = to_onnx(network, torch.zeros(1, 3, side, side), ["logits"])
    card = Card(
        name=name,
        detector=network.kind,
        task="classify",
        classes=(),
        input=InputRule(side, side, fixed=True),
        parameters=sum(p.numel() for p in network.parameters()),
        licence=source.licence,
        data=source.data,
        training={"config": asdict(network.config), "compression": dict(compression)},
        results={},
        opset=OPSET,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
    )
    return Bundle(card, graph)


# ------------------------------------------------------------ coding

SMALLEST = 16
"""Numbers in a tensor that is worth a line of the index."""
WORTH_CODING = 0.95
"""Of a tensor's deflated bytes; int8 kernels gain 1 %, shared values more than 10."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A compressed model.

    Attributes:
        bundle: the model.
        summaries: what form each coded tensor has, by its name in the graph.
        content: of the file.
    """

    bundle: Bundle
    summaries: Mapping[str, TensorSummary]
    content: bytes


def encode(model: Bundle) -> Encoded:
    """Code those float tensors of a graph that this makes a twentieth smaller than deflating them.

    Raises:
        ModelError: the graph is damaged, holds no convolution, or does not survive coding.
    """
    coded = {}
    for name, values in read_graph(model.graph, Path(model.card.name)).tensors.items():
        if SMALLEST <= values.size <= MAX_SIZE:
            content = encode_tensor(values)
            if len(content) < WORTH_CODING * len(zlib.compress(_as_stored(values), 9)):
                coded[name] = content
    summaries = {name: describe(content) for name, content in coded.items()}
    return Encoded(model, summaries, bundle.to_bytes(model, coded))


def _as_stored(values: NDArray[np.float32]) -> bytes:
    """The numbers as the graph has them: as float16 those that are exact, kernels as a rule."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half.tobytes() if np.array_equal(half, values) else values.tobytes()
