"""A trained detector as a network again, from any of the files that hold one."""

from __future__ import annotations

from pathlib import Path

from squeezedet.detectors import zoo
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.errors import ModelError
from squeezedet.runtime import bundle
from squeezedet.runtime.card import Card
from squeezedet.training import checkpoint
from squeezedet.training.start import load_bundle

FIRST_NAMES = {"squeezedet": "convdet"}
"""How the first bundles called a kind of network."""


def open_detector(source: str) -> DetectionNetwork:
    """Read a detector.

    Args:
        source: the name of a shipped model, or the path of a model file or of a checkpoint.

    Returns:
        The network, in evaluation mode.

    Raises:
        UsageError: there is no such file.
        ModelError: it is damaged, or the network cannot be had from it.
    """
    path = bundle.find(source)
    if checkpoint.is_ours(path):
        return checkpoint.load_detector(path)[0]
    return from_bundle(path, bundle.read_card(path))


def from_bundle(path: Path, card: Card) -> DetectionNetwork:
    """The network of a bundle, in evaluation mode.

    It has no batch normalisation, as the graph has none, and the input and selection that the
    card names.

    Raises:
        ModelError: the bundle is damaged, or the network cannot be had from it.
    """
    detector = _described(card, path).folded()
    detector.input_rule, detector.selection = card.input, card.selection
    left = load_bundle(detector, path)
    if left:
        raise ModelError(f"{path}: holds no {left[0]} that fits what its card says")
    return detector


def _described(card: Card, path: Path) -> DetectionNetwork:
    """The detector that a card describes, with random weights.

    Raises:
        ModelError: the card describes none.
    """
    config = dict(card.training.get("config") or {})
    kind = str(config.pop("detector", card.detector))
    values = checkpoint.tuples(config) | {"classes": card.classes}
    try:
        network = zoo.class_of(FIRST_NAMES.get(kind, kind))
        detector: DetectionNetwork = network(network.config_type(**values))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: its card does not say what it was built from") from error
    return detector
