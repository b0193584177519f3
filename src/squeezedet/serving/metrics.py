"""What Prometheus reads at ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The server's counters, of one application; nothing is global.

    Attributes:
        stage: seconds of each stage: read (the body), load (decoding), preprocess, network,
            postprocess, and total (from the body's last byte to the answer, waiting included).
        queue: requests that wait or are worked on.
        rejects: requests without an answer of the model, by reason.
        requests: by route and status.
        streams: open WebSockets.
        restarts: decoders that were ended because an image took too long or too much memory.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.stage = Histogram(
            "squeezedet_stage_seconds",
            "Time of each stage of a detection",
            ["stage"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.queue = Gauge(
            "squeezedet_queue_depth", "Requests that wait or are worked on", registry=registry
        )
        self.rejects = Counter(
            "squeezedet_rejects", "Requests turned away", ["reason"], registry=registry
        )
        self.requests = Counter(
            "squeezedet_requests", "Requests", ["route", "status"], registry=registry
        )
        self.streams = Gauge("squeezedet_streams", "Open WebSocket streams", registry=registry)
        self.restarts = Counter(
            "squeezedet_decoder_restarts",
            "Decoders ended for taking too long or too much memory",
            registry=registry,
        )

    def observe(self, timing_ms: Mapping[str, float]) -> None:
        """Count the stages of one detection."""
        for stage, ms in timing_ms.items():
            self.stage.labels(stage).observe(ms / 1000)

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Ask for the queue's depth whenever the metrics are read."""
        self.queue.set_function(depth)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)
