"""The application: every route, and the server that it runs in."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import math
import mimetypes
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, cast

import uvicorn
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.websockets import WebSocket

from squeezedet.errors import SqueezeDetError
from squeezedet.pages import render
from squeezedet.preprocess import InputRule
from squeezedet.runtime.bundle import WEIGHTS
from squeezedet.runtime.card import Card
from squeezedet.runtime.detector import Detector
from squeezedet.serving import cameras as own_cameras
from squeezedet.serving import kserve, problems
from squeezedet.serving.cameras import Cameras
from squeezedet.serving.connections import HEAD_S, Connections, Memory, connection_of
from squeezedet.serving.decode import Limits
from squeezedet.serving.decoders import Decoders
from squeezedet.serving.guard import Bodies, Guard, ServerConfig
from squeezedet.serving.pipeline import Pipeline
from squeezedet.serving.problems import Metrics, ProblemError, documented
from squeezedet.serving.stream import Streams
from squeezedet.serving.workers import Workers
from squeezedet.version import __version__

# ------------------------------------------------------------------ POST /detect


class Box(BaseModel):
    class_: str = Field(alias="class")
    score: float = Field(ge=0, le=1)
    xyxy: list[float] = Field(min_length=4, max_length=4, description="pixels of the image")


class Record(BaseModel):
    """What is in one image: the record of ``squeezedet detect --format json``."""

    image: str = Field(description="empty: a body has no name")
    width: int
    height: int
    detections: list[Box] = Field(description="by descending score")
    timing_ms: dict[str, float] = Field(description="load, preprocess, network, postprocess")


class Model(BaseModel):
    """The model behind the server, from its card."""

    name: str
    detector: str
    classes: list[str]
    score: float = Field(description="boxes below are not reported unless a request says so")
    input: InputRule = Field(description="size of the input; if not fixed, at most so many pixels")
    engine: str
    licence: str
    max_pixels: int
    max_bytes: int


IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff")
ANY_TYPES = ("application/octet-stream", "application/x-www-form-urlencoded")
"""What clients say that do not know better; the second is curl's ``--data-binary``."""
BODY = {
    "required": True,
    "content": {
        kind: {"schema": {"type": "string", "format": "binary"}} for kind in (*IMAGE_TYPES, "application/octet-stream")
    },
}
Score = Annotated[float | None, Query(ge=0, le=1, description="Lowest score to report; the model's own by default.")]


def detect_router(pipeline: Pipeline, bodies: Bodies) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/detect",
        summary="Detect in an image",
        response_model=Record,
        responses=documented(400, 401, 403, 408, 413, 415, 421, 422, 500, 503, 504),
        openapi_extra={"requestBody": BODY},
    )
    async def detect(request: Request, score: Score = None) -> Any:
        """The body is the file itself: JPEG, PNG, WebP, GIF, BMP, TIFF or PPM."""
        _check_type(request)
        address = connection_of(request.scope).address
        pipeline.check_room(address)
        async with bodies.read(request) as body:
            found = await pipeline.image(body, score, address)
        return JSONResponse(found.to_dict())

    return routes


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", ANY_TYPES[0]).partition(";")[0].strip().lower()
    if kind not in ANY_TYPES and not kind.startswith("image/"):
        raise ProblemError(
            415,
            "send the image itself as the body (curl --data-binary @street.jpg; Content-Type: image/jpeg, "
            "image/png, ... or application/octet-stream)",
            "type",
        )


# ------------------------------------------------------------------ the page, and what is said of the server

FOLDER = Path(__file__).resolve().parent / "page"
INDEX, EXAMPLE, CONFIG = "index.html", "demo.jpg", "config.json"
CAMERAS = "cameras/index.html"
FILE_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".html": "text/html"}
"""A machine's own tables are not always right, and browsers are strict with these."""


def page_router(has_cameras: bool) -> APIRouter:
    """The page's files; the folder is read when the server starts. Where there are cameras, ``/`` shows them."""
    routes = APIRouter(include_in_schema=False)
    # A dictionary of what there is: no request's path ever becomes a path of the disk.
    files = {
        path.relative_to(FOLDER).as_posix(): (path.read_bytes(), _type(path))
        for path in sorted(FOLDER.rglob("*"))
        if path.is_file()
    } | {EXAMPLE: ((WEIGHTS / EXAMPLE).read_bytes(), "image/jpeg")}
    if has_cameras:
        config = json.loads(files[CONFIG][0]) | {"cameras": True}
        files[CONFIG] = json.dumps(config).encode(), files[CONFIG][1]

    @routes.get("/page/{name:path}")
    async def file(name: str) -> Response:
        if name not in files:
            raise ProblemError(404, "the page has no such file", "missing")
        content, kind = files[name]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    @routes.get("/")
    async def index() -> Response:
        return await file(CAMERAS if has_cameras else INDEX)

    @routes.get("/pictures")
    async def pictures() -> Response:
        return await file(INDEX)

    return routes


def _type(path: Path) -> str:
    kind = FILE_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    return kind or "application/octet-stream"


def about_router(detector: Detector, config: ServerConfig, metrics: Metrics) -> APIRouter:
    """The model, the list of routes, and the figures for Prometheus."""
    routes = APIRouter()

    @routes.get("/model", summary="The model", responses=documented(401, 403, 421))
    async def model() -> Model:
        now = detector.newest()
        card = now.card
        return Model(
            name=card.name,
            detector=card.detector,
            classes=list(card.classes),
            score=card.selection.score,
            input=card.input,
            engine=now.engine.name,
            licence=card.licence,
            max_pixels=config.max_pixels,
            max_bytes=config.max_bytes,
        )

    @routes.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        app: FastAPI = request.app
        return HTMLResponse(render("routes.html", paths=app.openapi()["paths"]))

    @routes.get("/metrics", include_in_schema=False)
    async def measured() -> Response:
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes


# ------------------------------------------------------------------ the server

HELD = 8
"""All bodies and messages together hold at most so many times the limit of one."""
MAX_DECODE_S = 1.0
"""Processor time for one image, or the server's time-out if that is less."""
BACKLOG = 128
STOP_SLACK_S = 5.0
MAX_HEAD_BYTES = 16_384
OUT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
SAY_AGAIN_S = 60.0
LOG = logging.getLogger("uvicorn.error")


class _NoFloods:
    """asyncio's handler of errors, but running out of files or memory is said once a minute.

    Without it each connection that cannot be accepted writes a traceback, hundreds a second.
    """

    def __init__(self) -> None:
        self._said = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in OUT_OF):
            loop.default_exception_handler(context)
        elif loop.time() - self._said >= SAY_AGAIN_S:
            self._said = loop.time()
            LOG.error("no new connections for the moment: %s", error.strerror)


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's, with a time limit for handshakes of TLS that uvicorn has no setting for."""

    async def create_server(self, *arguments: Any, **settings: Any) -> asyncio.Server:
        if settings.get("ssl"):
            settings["ssl_handshake_timeout"] = HEAD_S
        return await super().create_server(*arguments, **settings)


class Server(uvicorn.Server):
    """uvicorn's server with the application; its stop lets the streams send the answers that they owe."""

    def __init__(
        self, detector: Detector, config: ServerConfig, cameras: Cameras | None = None, workers: Workers | None = None
    ) -> None:
        self._workers = workers
        self._metrics = metrics = Metrics()
        memory = Memory(HELD * config.max_bytes)
        connections = Connections(memory, metrics)
        limits = Limits(
            max_pixels=config.max_pixels, max_bytes=config.max_bytes, seconds=min(MAX_DECODE_S, config.timeout_s)
        )
        decoders = Decoders(detector.card.input, limits, metrics, workers.count if workers else 1)
        pipeline = Pipeline(detector, decoders, workers, metrics, queue=config.queue, timeout_s=config.timeout_s)
        bodies = Bodies(config, memory, metrics)
        self._streams, self._cameras = Streams(pipeline, metrics, config.token, cameras), cameras
        app = _application(detector.card, pipeline, cameras, metrics)
        problems.install(app, metrics)
        for routes in (
            detect_router(pipeline, bodies),
            kserve.router(detector, pipeline, bodies),
            about_router(detector, config, metrics),
            page_router(cameras is not None),
            *([own_cameras.router(cameras, bodies)] if cameras else []),
        ):
            app.include_router(routes)

        @app.websocket("/stream")
        async def stream(socket: WebSocket) -> None:
            await self._streams.serve(socket)

        super().__init__(
            uvicorn.Config(
                Guard(app, config, metrics),
                loop="asyncio",
                http=cast(type[asyncio.Protocol], connections.protocol),
                ssl_certfile=config.tls_cert,
                ssl_keyfile=config.tls_key,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                ws="websockets-sansio",
                ws_max_size=config.max_bytes,
                ws_per_message_deflate=False,  # a small message must not become a huge one
                backlog=BACKLOG,
                # Reading a body and answering it may each take the whole time-out.
                timeout_graceful_shutdown=math.ceil(2 * config.timeout_s + STOP_SLACK_S),
                proxy_headers=False,
                server_header=False,
                access_log=False,
                log_config=None,
                log_level="error",
            )
        )

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, or ``should_exit``; a SqueezeDetError if the workers do not start."""
        factory = None if sys.platform == "win32" else _Loop
        workers = self._workers.running(self._metrics) if self._workers else nullcontext()
        with workers, asyncio.Runner(loop_factory=factory) as runner:
            runner.run(self.serve(sockets))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, finish every request and every stream's answer, and end."""
        for server in self.servers:
            server.close()
        if self._cameras:
            self._cameras.dismiss()
        await self._streams.stop()
        await super().shutdown(sockets)


def _application(card: Card, pipeline: Pipeline, cameras: Cameras | None, metrics: Metrics) -> FastAPI:
    """An application without routes; the pipeline and the cameras start and end with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(_NoFloods())
        async with pipeline.running():
            if cameras:
                cameras.start(metrics)
            try:
                yield
            finally:
                if cameras:
                    await asyncio.to_thread(cameras.stop)

    return FastAPI(
        title="squeezedet",
        version=__version__,
        summary=f"Finds {', '.join(card.classes)} in images.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )


def listen(config: ServerConfig) -> socket.socket:
    """A socket that listens; a SqueezeDetError if the address cannot be had."""
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        listening = socket.create_server(address, family=family, backlog=BACKLOG)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it: small answers at once
        return listening
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise SqueezeDetError(f"cannot listen at {config.host} port {config.port} ({reason})") from error


def url(config: ServerConfig, listening: socket.socket) -> str:
    """The address for a browser."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    scheme = "https" if config.tls_cert else "http"
    return f"{scheme}://{host}:{listening.getsockname()[1]}/"
