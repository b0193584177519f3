"""The Open Inference Protocol (KServe v2) over HTTP, with its binary tensors.

One model of one version; input ``images`` UINT8 [1, H, W, 3], RGB, of any size; outputs after
NMS, in pixels of that image: ``boxes`` FP32 [1, N, 4] (x1, y1, x2, y2), ``scores`` FP32 [1, N],
``class_ids`` INT64 [1, N]. The request's parameter ``score`` is the lowest score to report.
https://github.com/kserve/open-inference-protocol (the tensors' bytes: Triton's extension)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from pydantic import BaseModel

from squeezedet.detections import Detections
from squeezedet.runtime.bundle import FORMER_NAMES
from squeezedet.runtime.card import Card
from squeezedet.serving.connections import client_address
from squeezedet.serving.decode import DATATYPE, INPUT, MAX_ID
from squeezedet.serving.guard import Bodies
from squeezedet.serving.pipeline import Pipeline
from squeezedet.serving.problems import ProblemError, documented
from squeezedet.version import __version__

PREFIX = "/v2"
"""Under ``/v2/health`` there is nothing that a token has to guard."""
VERSION = "1"
HEADER_LENGTH = "Inference-Header-Content-Length"
OUTPUTS = {"boxes": "FP32", "scores": "FP32", "class_ids": "INT64"}

# ------------------------------------------------- objects, for the OpenAPI document


class ServerMetadata(BaseModel):
    """Of the server."""

    name: str
    version: str
    extensions: list[str]


class HealthLive(BaseModel):
    """The server lives."""

    live: bool


class HealthReady(BaseModel):
    """The server is ready: there is a process that decodes."""

    ready: bool


class ModelReady(BaseModel):
    """The model is ready."""

    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """An input or output; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """Of the model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(BaseModel):
    """Numbers in row order, or in ``parameters`` the length of the bytes behind the JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float] | None = None
    parameters: dict[str, int] | None = None


class InferAnswer(BaseModel):
    """The tensors of the model's answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape", "data"],
    "properties": {
        "name": {"const": INPUT},
        "datatype": {"const": DATATYPE},
        "shape": {"type": "array", "minItems": 4, "description": "[1, height, width, 3]"},
        "data": {"type": "array", "description": "0 to 255, nested or flat, in row order"},
    },
}
_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"enum": list(OUTPUTS)},
        "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
    },
}
INFER_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string", "maxLength": MAX_ID},
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "score": {"type": "number", "minimum": 0, "maximum": 1},
                            "binary_data_output": {"type": "boolean"},
                        },
                    },
                    "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": _TENSOR},
                    "outputs": {"type": "array", "items": _OUTPUT},
                },
            },
            "example": {
                "inputs": [
                    {"name": INPUT, "datatype": DATATYPE, "shape": [1, 1, 2, 3], "data": [0, 0, 0, 255, 255, 255]}
                ]
            },
        }
    },
}
"""What ``decode.from_tensors`` reads, for the OpenAPI document."""
BINARY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}

VERSION_PARAMETER: dict[str, Any] = {
    "parameters": [{"name": "version", "in": "path", "required": True, "schema": {"type": "string", "enum": [VERSION]}}]
}
T = TypeVar("T", bound=Callable[..., Any])

# ------------------------------------------------------------------ routes


def router(card: Card, platform: str, pipeline: Pipeline, bodies: Bodies) -> APIRouter:
    """The routes under ``/v2``; those of the model with its version in the path as well.

    Args:
        card: of the model.
        platform: name of the engine.
        pipeline: what answers.
        bodies: what reads.
    """
    routes = APIRouter(prefix=PREFIX)

    @routes.get("", summary="The server", responses=documented(401, 403, 421))
    async def server() -> ServerMetadata:
        return ServerMetadata(name="squeezedet", version=__version__, extensions=["binary_tensor_data"])

    @routes.get("/health/live", summary="Whether the server lives", responses=documented(403, 421))
    async def live() -> HealthLive:
        return HealthLive(live=True)

    @routes.get(
        "/health/ready", summary="Whether it is ready", responses=documented(403, 421) | {503: {"model": HealthReady}}
    )
    async def ready(response: Response) -> HealthReady:
        response.status_code = 200 if pipeline.ready else 503
        return HealthReady(ready=pipeline.ready)

    _model_routes(routes, card, platform, pipeline, bodies)
    return routes


def _model_routes(routes: APIRouter, card: Card, platform: str, pipeline: Pipeline, bodies: Bodies) -> None:
    the_name = Path(json_schema_extra={"enum": [card.name]})

    def both(method: str, path: str, statuses: tuple[int, ...], **settings: Any) -> Callable[[T], T]:
        """Two routes for one function: with the version in the path, and without."""
        settings["responses"] = documented(404, *statuses) | settings.pop("responses", {})
        extra = settings.pop("openapi_extra", {})

        def add(function: T) -> T:
            name, version = "/models/{name}", "/versions/{version}"
            routes.add_api_route(name + path, function, methods=[method], openapi_extra=extra, **settings)
            routes.add_api_route(
                name + version + path, function, methods=[method], openapi_extra=extra | VERSION_PARAMETER, **settings
            )
            return function

        return add

    @both("GET", "", (401, 403, 421), summary="The model")
    async def model(request: Request, name: str = the_name) -> ModelMetadata:
        _check_model(request, name, card)
        return _metadata(card, platform)

    @both(
        "GET", "/ready", (401, 403, 421), summary="Whether the model is ready", responses={503: {"model": ModelReady}}
    )
    async def model_ready(request: Request, response: Response, name: str = the_name) -> ModelReady:
        _check_model(request, name, card)
        response.status_code = 200 if pipeline.ready else 503
        return ModelReady(name=card.name, ready=pipeline.ready)

    @both(
        "POST",
        "/infer",
        (400, 401, 403, 408, 413, 415, 421, 422, 500, 503, 504),
        summary="Detect in a tensor",
        response_model=InferAnswer,
        responses=BINARY_ANSWER,
        openapi_extra={"requestBody": INFER_BODY},
    )
    async def infer(request: Request, name: str = the_name) -> Any:
        """Tensors as JSON numbers, or as bytes behind the JSON (binary tensor extension)."""
        _check_model(request, name, card)
        address = client_address(request.scope)
        pipeline.check_room(address)
        async with bodies.read(request) as body, pipeline.place(address):
            image = await pipeline.tensors(body, _header_bytes(request), address)
            found = await pipeline.infer(image, image.request["score"])
        return _answer(card, image.request, found)


def _check_model(request: Request, name: str, card: Card) -> None:
    if FORMER_NAMES.get(name, name) != card.name:
        raise ProblemError(404, f"no such model; this server has {card.name!r}", "model")
    if request.path_params.get("version", VERSION) != VERSION:
        raise ProblemError(404, f"the model has one version, {VERSION}", "model")


def _header_bytes(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ProblemError(400, f"{HEADER_LENGTH} must be a number of bytes", "malformed")
    return int(text)


def _metadata(card: Card, platform: str) -> ModelMetadata:
    shapes = {"boxes": [1, -1, 4], "scores": [1, -1], "class_ids": [1, -1]}
    return ModelMetadata(
        name=card.name,
        versions=[VERSION],
        platform=platform,
        inputs=[TensorMetadata(name=INPUT, datatype=DATATYPE, shape=[1, -1, -1, 3])],
        outputs=[
            TensorMetadata(name=name, datatype=datatype, shape=shapes[name]) for name, datatype in OUTPUTS.items()
        ],
    )


def _answer(card: Card, request: Mapping[str, Any], found: Detections) -> Response:
    arrays: dict[str, NDArray[Any]] = {
        "boxes": found.xyxy[None].astype("<f4"),
        "scores": found.score[None].astype("<f4"),
        "class_ids": found.class_id[None].astype("<i8"),
    }
    answer: dict[str, Any] = {"model_name": card.name, "model_version": VERSION}
    if request["id"] is not None:
        answer["id"] = request["id"]
    answer["outputs"], tail = [], []
    for name, binary in request["binary"].items():
        array = arrays[name]
        tensor = {"name": name, "datatype": OUTPUTS[name], "shape": list(array.shape)}
        if binary:
            tail.append(array.tobytes())
            tensor["parameters"] = {"binary_data_size": array.nbytes}
        else:
            tensor["data"] = array.ravel().tolist()
        answer["outputs"].append(tensor)
    text = json.dumps(answer).encode()
    if not tail:
        return Response(text, media_type=JSONResponse.media_type)
    return Response(
        b"".join((text, *tail)), media_type="application/octet-stream", headers={HEADER_LENGTH: str(len(text))}
    )
