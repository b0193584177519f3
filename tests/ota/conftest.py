"""A small fleet: keys, three versions of one small network, and their packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeezedet.ota import package
from squeezedet.ota.delta import tensors
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import CARD, GRAPH
from squeezedet.runtime.card import Card

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
pytest.importorskip("cryptography")


def moved(parts: Mapping[str, bytes], share: float, only: str = "") -> dict[str, bytes]:
    """The model with a share of its int8 weights moved by one, as after a little training."""
    import hashlib
    from dataclasses import replace

    graph = bytearray(parts[GRAPH])
    rng = np.random.default_rng(5)
    for name, tensor in tensors(parts[GRAPH]).items():
        if tensor.item_bytes == 1 and tensor.stop - tensor.start > 500 and only in name:
            values = np.frombuffer(graph, np.int8, tensor.stop - tensor.start, tensor.start).copy()
            step = rng.choice([-1, 0, 1], len(values), p=[share / 2, 1 - share, share / 2])
            graph[tensor.start : tensor.stop] = np.clip(values + step, -64, 63).astype(np.int8).tobytes()
    card = Card.from_json(parts[CARD], "card")
    card = replace(card, graph_sha256=hashlib.sha256(graph).hexdigest())
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


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("fleet")
    package.keygen(folder / "root", now=NOW)
    package.keygen(folder / "release", folder / "root.pem", now=NOW)
    first = bundle.plain_parts(bundle.find("street"))
    second = moved(first, 0.2)
    versions = [first, second, moved(second, 0.5, only="convdet")]
    models, whole, delta = [], [], []
    for number, parts in enumerate(versions, 1):
        models.append(folder / f"{number}.bundle")
        models[-1].write_bytes(bundle.plain_bytes(parts))
        for base, made in ((None, whole), (models[-2] if number > 1 else None, delta)):
            made.append(folder / f"{number}{'-delta' if base else ''}.ota")
            package.pack(models[-1], made[-1], folder / "release.pem", version=number, base=base, now=NOW)
    return Fleet(folder, models, whole, delta)


@pytest.fixture
def repack(fleet: Fleet, tmp_path: Path) -> Callable[..., Path]:
    """A package with other parts, not signed again: ``repack(path, model=b"...")``; None leaves one out."""

    def make(path: Path, **changes: Any) -> Path:
        parts = bundle.all_members(path.read_bytes(), path, package.LIMITS)
        parts |= {name.replace("_", "."): content for name, content in changes.items()}
        made = tmp_path / "changed.ota"
        made.write_bytes(bundle.zip_members({name: c for name, c in parts.items() if c is not None}))
        return made

    return make
