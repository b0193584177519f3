"""What Prometheus reads at ``/metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The server's counters, of one application; nothing is global.

    Stages are read (the body), load (decoding), preprocess, network, postprocess, and total (from the body's last byte
    to the answer, waiting included).
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"squeezedet_{name}", what, registry=registry)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"squeezedet_{name}", what, labels, registry=registry)

        what = "Time of each stage of a detection"
        self.stage = Histogram("squeezedet_stage_seconds", what, ["stage"], buckets=BUCKETS_S, registry=registry)
        self.queue = gauge("queue_depth", "Requests that wait or are worked on")
        self.streams = gauge("streams", "Open WebSocket streams")
        self.camera_frames = counter("camera_frames", "Frames of each camera that were detected in", "camera")
        self.camera_live = Gauge(
            "squeezedet_camera_live", "Whether a camera gives frames", ["camera"], registry=registry
        )
        self.decoders = gauge("decoders", "Processes that decode and live")
        self.workers = gauge("workers", "Processes that run the network and live; none without --workers")
        self.rejects = counter("rejects", "Requests turned away", "reason")
        self.requests = counter("requests", "Requests", "route", "status")
        self.restarts = counter("decoder_restarts", "Decoders that were replaced")
        self.worker_restarts = counter("worker_restarts", "Workers that were replaced")
        self.worker_runs = counter("worker_runs", "Images of each worker", "worker")

    def text(self) -> bytes:
        return generate_latest(self.registry)
