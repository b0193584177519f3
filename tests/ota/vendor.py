"""A small fleet: keys, three versions of one small network, and their packages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from squeezedet.ota.delta import tensors
from squeezedet.runtime.bundle import CARD, GRAPH
from squeezedet.runtime.card import Card

NOW = datetime.now(UTC).replace(microsecond=0)


def moved(parts: Mapping[str, bytes], name: str, share: float, only: str = "") -> dict[str, bytes]:
    """The model with a share of its int8 weights moved by one, as after a little training."""
    graph = bytearray(parts[GRAPH])
    rng = np.random.default_rng(5)
    for tensor_name, tensor in tensors(parts[GRAPH]).items():
        if tensor.item_bytes == 1 and tensor.stop - tensor.start > 500 and only in tensor_name:
            values = np.frombuffer(graph, np.int8, tensor.stop - tensor.start, tensor.start).copy()
            step = rng.choice([-1, 0, 1], len(values), p=[share / 2, 1 - share, share / 2])
            graph[tensor.start : tensor.stop] = np.clip(values + step, -64, 63).astype(np.int8).tobytes()
    card = Card.from_json(parts[CARD], "card")
    card = replace(card, name=name, graph_sha256=hashlib.sha256(graph).hexdigest())
    return {CARD: card.to_json().encode(), GRAPH: bytes(graph)}


@dataclass(frozen=True)
class Fleet:
    """What a vendor has.

    Attributes:
        models: bundles; the second is a little trained, the third in its heads alone.
        whole, delta: of the packages of versions 1 to 3; the deltas are each to the version before.
        keys: what devices trust.
    """

    folder: Path
    models: list[Path]
    whole: list[Path]
    delta: list[Path]

    @property
    def keys(self) -> Path:
        return self.folder / "root.pub"

    @property
    def release(self) -> Path:
        return self.folder / "release.pem"
