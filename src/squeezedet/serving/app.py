"""The application: every route, and the server that it runs in."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import math
import mimetypes
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from email.message import Message
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
from squeezedet.runtime.bundle import WEIGHTS
from squeezedet.runtime.card import Card
from squeezedet.runtime.engines import Engine
from squeezedet.serving import cameras as own_cameras
from squeezedet.serving import kserve, problems
from squeezedet.serving.cameras import Cameras
from squeezedet.serving.config import ServerConfig
from squeezedet.serving.connections import HEAD_S, Connections, Memory, connection_of
from squeezedet.serving.decode import Limits
from squeezedet.serving.decoders import Decoders
from squeezedet.serving.guard import Bodies, Guard
from squeezedet.serving.metrics import Metrics
from squeezedet.serving.pipeline import Inference, Pipeline
from squeezedet.serving.problems import ProblemError, documented
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


class ModelInput(BaseModel):
    """Which size an image gets."""

    width: int
    height: int
    fixed: bool = Field(description="every image gets this size; if not, at most so many pixels")


class Model(BaseModel):
    """The model behind the server, from its card."""

    name: str
    detector: str
    classes: list[str]
    score: float = Field(description="boxes below are not reported unless a request says so")
    input: ModelInput
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
FORM, MAX_PARTS, MAX_PART_HEAD = "multipart/form-data", 16, 4096
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
        """The body is the file itself: JPEG, PNG, WebP, GIF, BMP, TIFF or PPM; or a form
        (multipart/form-data) with one file.
        """
        kind = _content_type(request)
        address = connection_of(request.scope).address
        pipeline.check_room(address)
        async with bodies.read(request) as body:
            content = _file_of_form(body, request) if kind == FORM else body
            found = await pipeline.image(content, score, address)
        return JSONResponse(found.to_dict())

    return routes


def _content_type(request: Request) -> str:
    kind = request.headers.get("content-type", ANY_TYPES[0]).partition(";")[0].strip().lower()
    if kind not in (*ANY_TYPES, FORM) and not kind.startswith("image/"):
        raise ProblemError(
            415,
            "send the image itself as the body (Content-Type: image/jpeg, image/png, ... or "
            "application/octet-stream), or as the file of a form (multipart/form-data)",
            "type",
        )
    return kind


def _file_of_form(body: bytes, request: Request) -> bytes:
    """The first file in a multipart body (RFC 7578).

    Raises:
        ProblemError: there is none.
    """
    header = Message()
    header["Content-Type"] = request.headers["content-type"]
    boundary = header.get_boundary("").encode("latin-1", "replace")
    mark, at = b"\r\n--" + boundary, 0
    body = b"\r\n" + body
    for _ in range(MAX_PARTS if boundary else 0):
        start = body.find(mark, at)
        end = body.find(mark, start + len(mark))
        if start < 0 or end < 0:
            break
        head, blank, _ = body[start + len(mark) : end][:MAX_PART_HEAD].partition(b"\r\n\r\n")
        if blank and b"filename" in head.lower():
            return body[start + len(mark) + len(head) + len(blank) : end]
        at = end
    raise ProblemError(400, "the form holds no file", "malformed")


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


def about_router(inference: Inference, config: ServerConfig, metrics: Metrics) -> APIRouter:
    """The model, the list of routes, and the figures for Prometheus."""
    routes = APIRouter()

    @routes.get("/model", summary="The model", responses=documented(401, 403, 421))
    async def model() -> Model:
        card, engine = inference.newest()
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
        self,
        card: Card,
        engine: Engine,
        config: ServerConfig,
        cameras: Cameras | None = None,
        newest: Callable[[], tuple[Card, Engine]] | None = None,
        workers: Workers | None = None,
    ) -> None:
        self._workers = workers
        self._metrics = metrics = Metrics()
        memory = Memory(HELD * config.max_bytes)
        connections = Connections(memory, metrics)
        limits = Limits(
            max_pixels=config.max_pixels, max_bytes=config.max_bytes, seconds=min(MAX_DECODE_S, config.timeout_s)
        )
        inference = Inference(card, engine, newest, workers)
        decoders = Decoders(card.input, limits, metrics, inference.at_once)
        pipeline = Pipeline(inference, decoders, metrics, queue=config.queue, timeout_s=config.timeout_s)
        bodies = Bodies(config, memory, metrics)
        self._streams, self._cameras = Streams(pipeline, metrics, config.token, cameras), cameras
        app = _application(card, inference, decoders, cameras, metrics)
        problems.install(app, metrics)
        for routes in (
            detect_router(pipeline, bodies),
            kserve.router(card, engine.name, pipeline, bodies),
            about_router(inference, config, metrics),
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
        """Serve until a signal, or ``should_exit``.

        Raises:
            SqueezeDetError: the workers do not start.
        """
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


def _application(
    card: Card, inference: Inference, decoders: Decoders, cameras: Cameras | None, metrics: Metrics
) -> FastAPI:
    """An application without routes; the decoders and the cameras start and end with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(_NoFloods())
        await decoders.start()
        try:
            await inference.warm_up()
            if cameras:
                cameras.start(metrics)
            yield
        finally:
            if cameras:
                await asyncio.to_thread(cameras.stop)
            await decoders.close()
            inference.close()

    return FastAPI(
        title="squeezedet",
        version=__version__,
        summary=f"Finds {', '.join(card.classes)} in images.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )


def listen(config: ServerConfig) -> socket.socket:
    """A socket that listens.

    Raises:
        SqueezeDetError: the address cannot be had.
    """
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        family, kind, _, _, address = found[0]
        # The protocol by name: asyncio sends small answers at once (TCP_NODELAY) where it sees it.
        listening = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        return listening
    except OSError as error:
        raise SqueezeDetError(
            f"cannot listen at {config.host} port {config.port} ({error.strerror or error})"
        ) from error


def url(config: ServerConfig, listening: socket.socket) -> str:
    """The address for a browser."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    scheme = "https" if config.tls_cert else "http"
    return f"{scheme}://{host}:{listening.getsockname()[1]}/"
