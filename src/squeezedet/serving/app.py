"""The application: every route, and what they share."""

from __future__ import annotations

import math
import mimetypes
import socket
from asyncio import Protocol
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, cast

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.types import ASGIApp

from squeezedet.errors import SqueezeDetError
from squeezedet.runtime.card import Card
from squeezedet.runtime.engines.engine import Engine
from squeezedet.serving import endpoints, kserve, problems
from squeezedet.serving.config import ServerConfig
from squeezedet.serving.decode_process import Limits
from squeezedet.serving.decoders import Decoders
from squeezedet.serving.endpoints import Model, ModelInput
from squeezedet.serving.guard import MAX_HEAD_BYTES, Bodies, Connection, Guard
from squeezedet.serving.metrics import CONTENT_TYPE, Metrics
from squeezedet.serving.pipeline import Inference, Pipeline
from squeezedet.serving.problems import ProblemError
from squeezedet.serving.stream import Streams
from squeezedet.version import __version__

# ---- docs_page: ``/docs``: the OpenAPI document as a plain page; FastAPI's own loads scripts fro

HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>squeezedet: routes</title>
<h1>Routes</h1>
<p>The same for programs: <a href="/openapi.json">/openapi.json</a>.
Besides: <code>GET /</code> the page, <code>WebSocket /stream</code> (a binary message is an
encoded image, the answer is the record of <code>POST /detect</code>; a text message
<code>{"score": 0.3}</code> sets the lowest score), <code>GET /metrics</code> for Prometheus.</p>
"""


def docs_router() -> APIRouter:
    """The route."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def docs(request: Request) -> HTMLResponse:
        app: FastAPI = request.app
        return HTMLResponse(render_docs(app.openapi()))

    return routes


def render_docs(document: dict[str, Any]) -> str:
    """An OpenAPI document as HTML: each route with its parameters, bodies and answers."""
    routes = (
        _operation(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return HEAD + "".join(routes)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [
        f"<h2><code>{method} {escape(path)}</code></h2>",
        f"<p>{escape(operation.get('summary', ''))}. "
        f"{escape(operation.get('description', ''))}</p><ul>",
    ]
    for parameter in operation.get("parameters", []):
        what = escape(parameter.get("description", parameter["in"]))
        lines.append(f"<li><code>{escape(parameter['name'])}</code> ({parameter['in']}): {what}")
    kinds = operation.get("requestBody", {}).get("content", {})
    if kinds:
        lines.append(f"<li>body: {escape(', '.join(kinds))}")
    statuses = ", ".join(operation["responses"])
    lines.append(
        f"<li>answers: {escape(statuses)}; from 400 on "
        '<code>{"error": "one sentence"}</code></ul>'
    )
    return "\n".join(lines)


# ---- page: ``/`` and ``/page/...``: the page's own files, and nothing else of the disk.

FOLDER = Path(__file__).resolve().parent / "page"
INDEX = "index.html"
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".html": "text/html"}
"""A machine's own tables are not always right, and browsers are strict with these."""


def page_router(folder: Path = FOLDER) -> APIRouter:
    """The routes; the folder is read when the server starts."""
    routes = APIRouter(include_in_schema=False)
    # A dictionary of what there is: no request's path ever becomes a path of the disk.
    files = {
        path.relative_to(folder).as_posix(): (path.read_bytes(), _type(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".py"
    }

    def answer(name: str) -> Response:
        if name not in files:
            raise ProblemError(404, "the page has no such file", "missing")
        content, kind = files[name]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    @routes.get("/")
    async def index() -> Response:
        return answer(INDEX)

    @routes.get("/page/{name:path}")
    async def file(name: str) -> Response:
        return answer(name)

    return routes


def _type(path: Path) -> str:
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    return kind or "application/octet-stream"


# ---- app: The application: every route, and what they share.

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
        endpoints.router(pipeline, bodies),
        kserve.router(card, engine.name, pipeline, bodies),
        _about(card, engine, config, metrics),
        streams.router(),
        docs_router(),
        page_router(),
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


# ---- server: Listen, serve, and stop without dropping what was accepted.

BACKLOG = 256
STOP_SLACK_S = 5.0


class Server(uvicorn.Server):
    """uvicorn's server, which lets the streams send the answers that they owe."""

    def __init__(self, service: Service, config: ServerConfig) -> None:
        # Reading a body and answering it may each take the whole time-out.
        longest = math.ceil(2 * config.timeout_s + STOP_SLACK_S)
        refused = service.metrics.rejects.labels("connections").inc
        super().__init__(
            uvicorn.Config(
                service.app,
                loop="asyncio",
                http=cast(type[Protocol], partial(Connection, refused=refused)),
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                ws="websockets-sansio",
                ws_max_size=config.max_bytes,
                ws_per_message_deflate=False,  # a small message must not become a huge one
                backlog=BACKLOG,
                timeout_graceful_shutdown=longest,
                proxy_headers=False,
                server_header=False,
                access_log=False,
                log_config=None,
                log_level="error",
            )
        )
        self._streams = service.streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, finish every request and every stream's answer, and end."""
        for server in self.servers:
            server.close()
        await self._streams.stop()
        await super().shutdown(sockets)


def listen(config: ServerConfig) -> socket.socket:
    """A socket that listens.

    Raises:
        SqueezeDetError: the address cannot be had.
    """
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise SqueezeDetError(
            f"cannot listen at {config.host} port {config.port} ({error.strerror or error})"
        ) from error


def url(config: ServerConfig, listening: socket.socket) -> str:
    """The address for a browser."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{listening.getsockname()[1]}/"
