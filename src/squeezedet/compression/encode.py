"""What is compressed, and from a network to the bytes of a bundle with coded weights."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from squeezedet.coding.tensor import MAX_SIZE, TensorSummary, describe, encode_tensor
from squeezedet.data.sample import Sample
from squeezedet.exporting.bundle import OPSET, TRAINING, UNKNOWN, bundle_detector, to_onnx
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezenet import SqueezeNet, from_weights
from squeezedet.preprocess import InputRule
from squeezedet.pretrained.onnx_file import read_graph
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.card import Card
from squeezedet.training import checkpoint
from squeezedet.training.init import detector_of_bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionSource:
    """A network with its weights, and what is known of it.

    Attributes:
        network: in evaluation mode, batch normalization folded into its kernels: these are
            what is stored, so these are what is pruned and shared.
        path: where it comes from.
        licence: of the weights.
        data: what they were trained on.
        training: how, as a card says it.
        results: measured accuracy, as a card says it.
    """

    network: DetectionNetwork | SqueezeNet
    path: Path
    licence: str = UNKNOWN
    data: str = UNKNOWN
    training: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)


def open_source(name: str) -> CompressionSource:
    """Read what shall be compressed.

    Args:
        name: of a shipped model; or the path of a bundle, of a checkpoint, or of
            the weights of a SqueezeNet (.onnx, .net, .npz, .caffemodel, .safetensors).

    Raises:
        UsageError: there is no such file.
        ModelError: it cannot be used.
    """
    path = bundle.find(name)
    if checkpoint.is_ours(path):
        return _checkpoint(path)
    if path.suffix != ".npz" and bundle.is_bundle(path):
        return _bundle(path)
    return CompressionSource(network=from_weights(path), path=path)


def _checkpoint(path: Path) -> CompressionSource:
    detector, saved = checkpoint.load_detector(path)
    known = saved.metadata
    return CompressionSource(
        network=detector.folded(),
        path=path,
        training={name: known[key] for name, key in TRAINING.items() if key in known},
        results=known.get("validation") or {},
    )


def _bundle(path: Path) -> CompressionSource:
    card = bundle.read_card(path)
    if card.task == "classify":
        network = from_weights(path)
        return CompressionSource(network=network, path=path, licence=card.licence, data=card.data)
    return CompressionSource(
        network=detector_of_bundle(bundle.read(path), path),
        path=path,
        licence=card.licence,
        data=card.data,
        training=card.training,
        results=card.results,
    )


@dataclass(frozen=True, slots=True)
class Encoded:
    """A compressed model.

    Attributes:
        bundle: the model.
        coded: its coded tensors by their names in the graph.
        content: of the file.
    """

    bundle: Bundle
    coded: Mapping[str, bytes]
    content: bytes

    def summaries(self) -> dict[str, TensorSummary]:
        """What form each coded tensor has."""
        return {name: describe(content) for name, content in self.coded.items()}


def encode_detector(
    detector: DetectionNetwork,
    source: CompressionSource,
    name: str,
    compression: Mapping[str, Any],
    results: Mapping[str, Any],
    calibrate_on: Sequence[Sample] = (),
) -> Encoded:
    """Export a detector, and code its weights.

    Args:
        detector: with shared weights that float16 can hold, and no batch normalization, which
            would change them; calibration moves its confidences.
        source: where it comes from, for the card.
        name: of the model.
        compression: how it was compressed, for the card.
        results: measured accuracy, for the card.
        calibrate_on: labelled images, see ``export.bundle.bundle_checkpoint``.

    Raises:
        ModelError: the exported graph differs from the detector, or does not survive coding.
    """
    return _encoded(
        bundle_detector(
            detector,
            name,
            licence=source.licence,
            data=source.data,
            training={**source.training, "compression": dict(compression)},
            results=results,
            calibrate_on=calibrate_on,
        )
    )


def encode_classifier(
    network: SqueezeNet, source: CompressionSource, name: str, compression: Mapping[str, Any]
) -> Encoded:
    """Export a SqueezeNet, and code its weights; its card names the network.

    Raises:
        ModelError: the graph does not survive coding.
    """
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
    return _encoded(Bundle(card, graph))


SMALLEST = 16
"""Numbers in a tensor that is worth a line of the index."""
WORTH_CODING = 0.95
"""Of a tensor's deflated bytes; int8 kernels gain 1 %, shared values more than 10."""


def encode_weights(model: Bundle) -> dict[str, bytes]:
    """Code the float initializers of a graph; only those that this makes a twentieth smaller than deflating them.

    Returns:
        Name of an initializer -> its numbers, coded; for ``write``.

    Raises:
        ModelError: the graph is damaged, or holds no convolution.
    """
    coded = {}
    for name, values in read_graph(model.graph, Path(model.card.name)).tensors.items():
        if not SMALLEST <= values.size <= MAX_SIZE:
            continue
        content = encode_tensor(values)
        if len(content) < WORTH_CODING * len(zlib.compress(_as_stored(values), 9)):
            coded[name] = content
    return coded


def _as_stored(values: NDArray[np.float32]) -> bytes:
    """The numbers as the graph has them: as float16 those that are exact, kernels as a rule."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half.tobytes() if np.array_equal(half, values) else values.tobytes()


def _encoded(model: Bundle) -> Encoded:
    coded = encode_weights(model)
    return Encoded(model, coded, bundle.to_bytes(model, coded))
