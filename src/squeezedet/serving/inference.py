"""The model behind the server: one thread runs it, as one image already takes all cores."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from squeezedet.detections import Detections
from squeezedet.errors import ModelError
from squeezedet.runtime.card import Card
from squeezedet.runtime.engines.engine import Engine
from squeezedet.runtime.postprocess import report
from squeezedet.serving.prepare import Prepared


class Inference:
    """Runs prepared images, one after the other.

    Args:
        card: of the model.
        engine: that runs it.
    """

    def __init__(self, card: Card, engine: Engine) -> None:
        self.card, self.engine = card, engine
        self._thread = ThreadPoolExecutor(1, "network")

    async def __call__(self, image: Prepared, score: float | None) -> Detections:
        """What ``Detector.detect`` finds in the image.

        Raises:
            ModelError: the model fails.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.run, image, score)

    def run(self, image: Prepared, score: float | None = None) -> Detections:
        """The same, here and now."""
        selection = self.card.selection
        if score is not None:
            selection = replace(selection, score=float(score))
        start = time.perf_counter()
        raw = self.engine.run(image.pixels)
        ran = time.perf_counter()
        original = image.width, image.height
        found = report(raw, selection, self.card.input.content(*original), original)
        if not ((found.class_id >= 0) & (found.class_id < len(self.card.classes))).all():
            raise ModelError(f"the model {self.card.name!r} gives a class id that it does not have")
        stages = {
            "network": (ran - start) * 1000,
            "postprocess": (time.perf_counter() - ran) * 1000,
        }
        return Detections(
            found.xyxy,
            found.score,
            found.class_id,
            self.card.classes,
            width=image.width,
            height=image.height,
            timing_ms=image.timing_ms | stages,
        )

    async def warm_up(self) -> None:
        """Run once on nothing, so that the first client does not wait longer than the others.

        Raises:
            ModelError: the model fails.
        """
        width, height = self.card.input.width, self.card.input.height
        blank = np.zeros((height, width, 3), np.uint8)
        await self(Prepared(blank, width, height, {}), None)

    def close(self) -> None:
        """End the thread; what has not begun is dropped."""
        self._thread.shutdown(cancel_futures=True)
