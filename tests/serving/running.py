"""A real server on a free port of the loopback, in a thread of the tests."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from squeezedet.runtime.bundle import WEIGHTS
from squeezedet.runtime.card import Card
from squeezedet.runtime.detector import Detector
from squeezedet.runtime.engines import Engine
from squeezedet.runtime.postprocess import RawBoxes
from squeezedet.serving.app import Server, listen
from squeezedet.serving.cameras import Cameras
from squeezedet.serving.guard import ServerConfig

DEMO = (WEIGHTS / "demo.jpg").read_bytes()


@dataclass(frozen=True)
class Running:
    """A server that runs: its port, and what ends it as SIGTERM does."""

    port: int
    stop: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running(detector: Detector, cameras: Cameras | None = None, **settings: Any) -> Iterator[Running]:
    config = ServerConfig(port=0, **settings)
    with listen(config) as listening:
        port = listening.getsockname()[1]
        server = Server(detector, config, cameras)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()

        def stop() -> None:
            server.should_exit = True

        try:
            end = time.monotonic() + 120
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < end
                time.sleep(0.01)
            yield Running(port, stop)
        finally:
            stop()
            thread.join(120)
            assert not thread.is_alive()


def detector_of(card: Card, engine: Engine) -> Detector:
    """A detector whose engine is one of the tests'."""
    detector = Detector.__new__(Detector)
    detector.card, detector.names, detector.engine = card, card.classes, engine
    return detector


class HeldEngine:
    """An engine that finds one box, and only while it is not held: for tests of waiting."""

    name = "held"

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.runs = 0

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        assert self.free.wait(20)
        self.runs += 1
        height, width = pixels.shape[:2]
        return RawBoxes(
            np.array([[0, 0, width / 2, height / 2]], np.float32), np.array([0.9], np.float32), np.array([0], np.int64)
        )


def picture(width: int = 64, height: int = 48, form: str = "JPEG") -> bytes:
    """A small encoded image."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, form)
    return file.getvalue()
