"""The shipped model behind a server, once for all tests; and an engine that waits when told to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from squeezedet.runtime import bundle
from squeezedet.runtime.card import Card
from squeezedet.runtime.detector import Detector, load

from .running import HeldEngine, Running, running


@pytest.fixture(scope="session")
def detector() -> Detector:
    return load(threads=1)


@pytest.fixture(scope="session")
def server(detector: Detector) -> Iterator[Running]:
    """The shipped model with small limits."""
    with running(detector, timeout_s=60, max_pixels=1_000_000, max_bytes=1_000_000) as it:
        yield it


@pytest.fixture(scope="session")
def card() -> Card:
    return bundle.read_card(bundle.find("street"))


@pytest.fixture
def held() -> Iterator[HeldEngine]:
    engine = HeldEngine()
    yield engine
    engine.free.set()
