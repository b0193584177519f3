"""What is compressed: a checkpoint, a bundle, or the published weights of a SqueezeNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squeezedet.detectors.network import DetectionNetwork
from squeezedet.detectors.squeezenet import SqueezeNet, from_weights
from squeezedet.export.bundle import TRAINING, UNKNOWN
from squeezedet.pretrained.classifier_file import is_classifier, read_card
from squeezedet.runtime import bundle
from squeezedet.training import checkpoint
from squeezedet.training.opened import from_bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A network with its weights, and what is known of it.

    Attributes:
        network: in evaluation mode, batch normalisation folded into its kernels: these are
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


def open_source(name: str) -> Source:
    """Read what shall be compressed.

    Args:
        name: of a shipped model; or the path of a bundle, of a ``.sqz``, of a checkpoint, or of
            the weights of a SqueezeNet (.onnx, .net, .npz, .caffemodel, .safetensors).

    Raises:
        UsageError: there is no such file.
        ModelError: it cannot be used.
    """
    path = bundle.find(name)
    if checkpoint.is_ours(path):
        return _checkpoint(path)
    if is_classifier(path):
        card = read_card(path)
        return Source(
            network=from_weights(path),
            path=path,
            licence=str(card.get("licence", UNKNOWN)),
            data=str(card.get("data", UNKNOWN)),
        )
    if name in bundle.shipped() or path.suffix in bundle.SUFFIXES:
        return _bundle(path)
    return Source(network=from_weights(path), path=path)


def _checkpoint(path: Path) -> Source:
    detector, saved = checkpoint.load_detector(path)
    known = saved.metadata
    return Source(
        network=detector.folded(),
        path=path,
        training={name: known[key] for name, key in TRAINING.items() if key in known},
        results=known.get("validation") or {},
    )


def _bundle(path: Path) -> Source:
    card = bundle.read_card(path)
    return Source(
        network=from_bundle(path, card),
        path=path,
        licence=card.licence,
        data=card.data,
        training=card.training,
        results=card.results,
    )
