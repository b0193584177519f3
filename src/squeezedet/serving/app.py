"""The application: every route, and what they share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from fastapi import APIRouter, FastAPI, Response
from starlette.types import ASGIApp

from squeezedet.runtime.card import Card
from squeezedet.runtime.engines.engine import Engine
from squeezedet.serving import detect_route, docs_page, kserve, page, problems
from squeezedet.serving.body import Bodies
from squeezedet.serving.config import ServerConfig
from squeezedet.serving.decode_process import Limits
from squeezedet.serving.decoders import Decoders
from squeezedet.serving.guard import Guard
from squeezedet.serving.inference import Inference
from squeezedet.serving.metrics import CONTENT_TYPE, Metrics
from squeezedet.serving.pipeline import Pipeline
from squeezedet.serving.records import Model, ModelInput
from squeezedet.serving.stream import Streams
from squeezedet.version import __version__

MAX_DECODE_S = 5.0
"""Processor time for one image, or the server's time-out if that is less."""


@dataclass(frozen=True, slots=True)
class Service:
    """An application and what its server has to stop.

    Attributes:
        app: to be served.
        streams: the open WebSockets.
        metrics: the counters.
    """

    app: ASGIApp
    streams: Streams
    metrics: Metrics


def create(card: Card, engine: Engine, config: ServerConfig) -> Service:
    """Put the application together; the decoders start and end with it.

    Args:
        card: of the model.
        engine: the model, loaded.
        config: limits and token.
    """
    metrics = Metrics()
    limits = Limits(
        max_pixels=config.max_pixels,
        max_bytes=config.max_bytes,
        seconds=min(MAX_DECODE_S, config.timeout_s),
    )
    decoders = Decoders(card.input, limits, metrics)
    inference = Inference(card, engine)
    pipeline = Pipeline(
        inference, decoders, metrics, queue=config.queue, timeout_s=config.timeout_s
    )
    bodies = Bodies(config.max_bytes, config.timeout_s, metrics)
    streams = Streams(pipeline, metrics, config.token)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await decoders.start()
        try:
            await inference.warm_up()
            yield
        finally:
            await decoders.close()
            inference.close()

    app = FastAPI(
        title="squeezedet",
        version=__version__,
        summary=f"Finds {', '.join(card.classes)} in images.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    problems.install(app, metrics)
    for routes in (
        detect_route.router(pipeline, bodies),
        kserve.router(card, engine.name, pipeline, bodies),
        _about(card, engine, config, metrics),
        streams.router(),
        docs_page.router(),
        page.router(),
    ):
        app.include_router(routes)
    return Service(Guard(app, config, metrics), streams, metrics)


def _about(card: Card, engine: Engine, config: ServerConfig, metrics: Metrics) -> APIRouter:
    routes = APIRouter()

    @routes.get("/model", summary="The model", responses=problems.documented(401, 403, 421))
    async def model() -> Model:
        return Model(
            name=card.name,
            detector=card.detector,
            classes=list(card.classes),
            score=card.selection.score,
            input=ModelInput(**asdict(card.input)),
            engine=engine.name,
            licence=card.licence,
            max_pixels=config.max_pixels,
            max_bytes=config.max_bytes,
        )

    @routes.get("/metrics", include_in_schema=False)
    async def measured() -> Response:
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return routes
