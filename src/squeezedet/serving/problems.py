"""What is told of requests: to Prometheus their figures, to a client that gets no answer a status and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException

# ------------------------------------------------------------------ figures

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


# ------------------------------------------------------------------ refusals

RETRY = {"Retry-After": "1"}
SENTENCES = {
    404: "there is nothing at this address; / is the page, /docs lists the routes",
    405: "the address is right, the method is not; /docs lists the routes",
}


class Refusal(BaseModel):
    """The body of every answer of 400 and above."""

    error: str


class ProblemError(Exception):
    """A request that gets no answer of the model.

    Attributes:
        status: of HTTP.
        sentence: for the client; it never holds a path of the server.
        reason: a short label for the metrics.
        headers: for the answer.
    """

    def __init__(self, status: int, sentence: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.reason = status, sentence, reason
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        return JSONResponse({"error": self.sentence}, self.status, self.headers)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's ``responses`` for the statuses that a route refuses with."""
    return {status: {"model": Refusal} for status in statuses}


def install(app: FastAPI, metrics: Metrics) -> None:
    """Let every error of the application leave as ``{"error": sentence}``, and be counted."""

    @app.exception_handler(ProblemError)
    async def problem(_: Request, error: ProblemError) -> JSONResponse:
        metrics.rejects.labels(error.reason).inc()
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        metrics.rejects.labels("malformed").inc()
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(HTTPException)
    async def elsewhere(_: Request, error: HTTPException) -> JSONResponse:
        sentence = SENTENCES.get(error.status_code, error.detail)
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> JSONResponse:
        # Its traceback goes to the server's own standard error, never to the client.
        return JSONResponse({"error": "an error of the server itself; its log says more"}, 500)
