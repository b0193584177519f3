"""A classifier in a ``.sqz``: what ``squeezedet compress`` makes of a SqueezeNet."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding import container
from squeezedet.errors import ModelError
from squeezedet.pretrained.content import read_content
from squeezedet.pretrained.onnx_file import read_graph

FORMAT = "squeezedet classifier 1"
KIND = "squeezenet"
MAX_BYTES = 64_000_000
BLOBS = ("weight", "bias")


def is_classifier(path: Path) -> bool:
    """Whether a file is a container, whole, of a classifier; False if it cannot be read."""
    try:
        read_card(path)
    except ModelError:
        return False
    return True


def read_card(path: Path) -> dict[str, Any]:
    """What is known of the network: ``config``, ``licence``, ``data``, ...; not checked further.

    Raises:
        ModelError: the file is damaged, or holds no classifier.
    """
    return _card(read_content(path, MAX_BYTES), path)


def read_classifier(path: Path) -> dict[str, NDArray[np.float32]]:
    """The weights by the names of the layers, every bit as they were packed.

    Raises:
        ModelError: the file is damaged, or holds no classifier.
    """
    content = read_content(path, MAX_BYTES)
    card = _card(content, path)
    _, graph = container.unpack(content, str(path))
    if hashlib.sha256(graph).hexdigest() != card.get("graph_sha256"):
        raise ModelError(
            f"{path}: the graph's checksum is not the card's: the file was changed or damaged"
        )
    tensors = read_graph(graph, path).tensors
    weights = {n: t for n, t in tensors.items() if n.rpartition(".")[2] in BLOBS}
    for name in tensors:  # the exporter leaves a bias out that is zero
        layer, _, part = name.rpartition(".")
        if part == "weight" and f"{layer}.bias" not in weights:
            weights[f"{layer}.bias"] = np.zeros(len(weights[name]), np.float32)
    return weights


def _card(content: bytes, path: Path) -> dict[str, Any]:
    """The card of a classifier.

    Raises:
        ModelError: the container is damaged, or holds something else.
    """
    text = container.read_card(content, str(path))
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the card is no JSON: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT or card.get("network") != KIND:
        raise ModelError(f"{path}: holds no classifier; detectors are for squeezedet detect")
    return card
