"""The way of one request: admitted or turned away, decoded, run, answered in time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from squeezedet.detections import Detections
from squeezedet.runtime.detector import Detector
from squeezedet.serving.decode import Prepared
from squeezedet.serving.decoders import Decoders
from squeezedet.serving.problems import RETRY, Metrics, ProblemError
from squeezedet.serving.workers import Workers, detect

SMOOTH = 8
LATELY_S = 10.0
"""A place of the queue is kept for each other client address that was seen so lately."""


class Pipeline:
    """A bounded queue before the decoders and the model: ``queue`` requests for ``timeout_s`` at most.

    The model runs in a thread, on one image after the other, or in ``workers``, on as many at once as they are.
    """

    def __init__(
        self,
        detector: Detector,
        decoders: Decoders,
        workers: Workers | None,
        metrics: Metrics,
        *,
        queue: int,
        timeout_s: float,
    ) -> None:
        self.depth = 0
        self._detector, self._decoders, self._workers, self._metrics = detector, decoders, workers, metrics
        self._thread = ThreadPoolExecutor(1, "network")
        self._at_once = workers.count if workers else 1
        self._queue, self._timeout_s = queue, timeout_s
        self._run_s = 0.0  # of late, an exponential mean
        self._inside: Counter[str] = Counter()  # places by client address
        self._seen: dict[str, float] = {}  # address -> when
        metrics.queue.set_function(lambda: self.depth)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The decoders, and a model that has run once, as long as the block runs."""
        await self._decoders.start()
        try:
            if self._workers is None:  # they have done so themselves
                await asyncio.wrap_future(self._thread.submit(self._detector.warm_up))
            yield
        finally:
            await self._decoders.close()
            self._thread.shutdown(cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether a request can be answered: the model is loaded, a decoder and a worker live."""
        return self._decoders.live > 0 and (self._workers is None or self._workers.live > 0)

    def check_room(self, address: str) -> None:
        """Turn a request of this client away before its body is read, if it cannot be answered in time.

        That is if all places are taken, or all but those kept for other clients, or if so many runs of the model as
        are waiting, each as long as the last ones, need more than the time-out.

        Raises:
            ProblemError: 503 with Retry-After.
        """
        late = (self.depth // self._at_once + 1) * self._run_s > self._timeout_s
        full = self.depth >= self._queue or self._inside[address] >= self._share(address)
        if full or (self.depth >= self._at_once and late):
            raise ProblemError(503, "too many requests at once; try again in a second", "full", RETRY)

    def _share(self, address: str) -> int:
        """The places that one address may take: all, if it is alone; half at least."""
        now = time.monotonic()
        self._seen[address] = now
        self._seen = {one: when for one, when in self._seen.items() if now - when < LATELY_S}
        return self._queue - min(self._queue // 2, len(self._seen) - 1)

    @asynccontextmanager
    async def place(self, address: str) -> AsyncIterator[None]:
        """A place in the queue for the block; a ProblemError if there is none (503), or the time is over (504)."""
        self.check_room(address)
        self.depth += 1
        self._inside[address] += 1
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError as error:
            raise ProblemError(504, f"no answer within {self._timeout_s:g} seconds", "timeout") from error
        finally:
            self.depth -= 1
            self._inside[address] -= 1
            if not self._inside[address]:
                del self._inside[address]
        self._metrics.stage.labels("total").observe(time.perf_counter() - start)

    async def image(self, body: bytes, score: float | None, address: str) -> Detections:
        """Detect in an encoded image of a client at this address; a ProblemError says why not."""
        async with self.place(address):
            return await self.infer(await self._decoders.image(body, address), score)

    async def tensors(self, body: bytes, header_bytes: int | None, address: str) -> Prepared:
        """Read a request of the inference protocol; to be called in a place."""
        return await self._decoders.tensors(body, header_bytes, address)

    async def infer(self, image: Prepared, score: float | None) -> Detections:
        """Run the model on a prepared image; to be called in a place."""
        if self._workers is None:
            running = self._thread.submit(detect, self._detector, image, score)
        else:
            running = self._workers.submit(image, score)
        found = await asyncio.wrap_future(running)
        for stage, ms in found.timing_ms.items():
            self._metrics.stage.labels(stage).observe(ms / 1000)
        self._run_s += (found.timing_ms["network"] / 1000 - self._run_s) / SMOOTH
        return found
