"""The Open Inference Protocol (KServe v2) over HTTP, with its binary tensors.

One model; input ``images`` UINT8 [1, H, W, 3], RGB, of any size; outputs after NMS, in pixels of
that image: ``boxes`` FP32 [1, N, 4] (x1, y1, x2, y2), ``scores`` FP32 [1, N], ``class_ids`` INT64
[1, N]. The request's parameter ``score`` is the lowest score to report.
https://github.com/kserve/open-inference-protocol (the tensors' bytes: Triton's extension)
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from squeezedet.detections import Detections
from squeezedet.runtime.card import Card
from squeezedet.serving.body import Bodies
from squeezedet.serving.kserve_answer import Wanted, encode, wanted
from squeezedet.serving.kserve_records import (
    BINARY_ANSWER,
    INFER_BODY,
    HealthLive,
    HealthReady,
    InferAnswer,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    TensorMetadata,
)
from squeezedet.serving.pipeline import Pipeline
from squeezedet.serving.prepare import DATATYPE, INPUT
from squeezedet.serving.problems import ProblemError, documented
from squeezedet.version import __version__

HEADER_LENGTH = "Inference-Header-Content-Length"
PREFIX = "/v2"
"""Under ``/v2/health`` there is nothing that a token has to guard."""


def router(card: Card, platform: str, pipeline: Pipeline, bodies: Bodies) -> APIRouter:
    """The routes under ``/v2``.

    Args:
        card: of the model.
        platform: name of the engine.
        pipeline: what answers.
        bodies: what reads.
    """
    routes = APIRouter(prefix=PREFIX)
    the_name = Path(json_schema_extra={"enum": [card.name]})
    _health(routes)

    @routes.get("", summary="The server", responses=documented(401, 403, 421))
    async def server() -> ServerMetadata:
        return ServerMetadata(
            name="squeezedet", version=__version__, extensions=["binary_tensor_data"]
        )

    @routes.get("/models/{name}", summary="The model", responses=documented(401, 403, 404, 421))
    async def model(name: str = the_name) -> ModelMetadata:
        _check_name(name, card)
        return _metadata(card, platform)

    @routes.get(
        "/models/{name}/ready",
        summary="Whether the model is ready",
        responses=documented(401, 403, 404, 421),
    )
    async def model_ready(name: str = the_name) -> ModelReady:
        _check_name(name, card)
        return ModelReady(name=card.name, ready=True)

    @routes.post(
        "/models/{name}/infer",
        summary="Detect in a tensor",
        response_model=InferAnswer,
        responses=documented(400, 401, 403, 404, 408, 413, 415, 421, 422, 500, 503, 504)
        | BINARY_ANSWER,
        openapi_extra={"requestBody": INFER_BODY},
    )
    async def infer(request: Request, name: str = the_name) -> Any:
        """Tensors as JSON numbers, or as bytes behind the JSON (binary tensor extension)."""
        _check_name(name, card)
        pipeline.check_room()
        async with bodies.read(request) as body, pipeline.place():
            image = await pipeline.tensors(body, _header_bytes(request))
            outputs = wanted(image.request)
            found = await pipeline.infer(image, outputs.score)
        return _answer(card, outputs, found)

    return routes


def _health(routes: APIRouter) -> None:
    """There is no server before its model is loaded: alive is ready."""

    @routes.get("/health/live", summary="Whether the server lives", responses=documented(403, 421))
    async def live() -> HealthLive:
        return HealthLive(live=True)

    @routes.get("/health/ready", summary="Whether it is ready", responses=documented(403, 421))
    async def ready() -> HealthReady:
        return HealthReady(ready=True)


def _check_name(name: str, card: Card) -> None:
    if name != card.name:
        raise ProblemError(404, f"no such model; this server has {card.name!r}", "model")


def _header_bytes(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ProblemError(400, f"{HEADER_LENGTH} must be a number of bytes", "malformed")
    return int(text)


def _metadata(card: Card, platform: str) -> ModelMetadata:
    return ModelMetadata(
        name=card.name,
        versions=["1"],
        platform=platform,
        inputs=[TensorMetadata(name=INPUT, datatype=DATATYPE, shape=[1, -1, -1, 3])],
        outputs=[
            TensorMetadata(name="boxes", datatype="FP32", shape=[1, -1, 4]),
            TensorMetadata(name="scores", datatype="FP32", shape=[1, -1]),
            TensorMetadata(name="class_ids", datatype="INT64", shape=[1, -1]),
        ],
    )


def _answer(card: Card, outputs: Wanted, found: Detections) -> Response:
    arrays: dict[str, NDArray[Any]] = {
        "boxes": found.xyxy[None].astype("<f4"),
        "scores": found.score[None].astype("<f4"),
        "class_ids": found.class_id[None].astype("<i8"),
    }
    head: dict[str, Any] = {"model_name": card.name, "model_version": "1"}
    content, json_bytes = encode(head, outputs, arrays)
    if json_bytes is None:
        return Response(content, media_type=JSONResponse.media_type)
    return Response(
        content,
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(json_bytes)},
    )
