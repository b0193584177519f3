"""The Open Inference Protocol (KServe v2) over HTTP, with its binary tensors.

One model of one version; input ``images`` UINT8 [1, H, W, 3], RGB, of any size; outputs after NMS, in pixels of that
image: ``boxes`` FP32 [1, N, 4] (x1, y1, x2, y2), ``scores`` FP32 [1, N], ``class_ids`` INT64 [1, N]. The request's
parameter ``score`` is the lowest score to report.
https://github.com/kserve/open-inference-protocol (the tensors' bytes: Triton's extension)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from pydantic import BaseModel

from squeezedet.detections import Detections
from squeezedet.runtime.bundle import FORMER_NAMES
from squeezedet.runtime.card import Card
from squeezedet.runtime.detector import Detector
from squeezedet.serving.connections import connection_of
from squeezedet.serving.decode import DATATYPE, INPUT, MAX_ID
from squeezedet.serving.guard import Bodies
from squeezedet.serving.pipeline import Pipeline
from squeezedet.serving.problems import ProblemError, documented
from squeezedet.version import __version__

VERSION = "1"
HEADER_LENGTH = "Inference-Header-Content-Length"
OUTPUTS = {"boxes": "FP32", "scores": "FP32", "class_ids": "INT64"}
SHAPES = {"boxes": [1, -1, 4], "scores": [1, -1], "class_ids": [1, -1]}

# ------------------------------------------------- objects, for the OpenAPI document


class OutputTensor(BaseModel):
    """Numbers in row order, or in ``parameters`` the length of the bytes behind the JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float] | None = None
    parameters: dict[str, int] | None = None


class InferAnswer(BaseModel):
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
_PARAMETERS = {
    "type": "object",
    "properties": {"score": {"type": "number", "minimum": 0, "maximum": 1}, "binary_data_output": {"type": "boolean"}},
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": MAX_ID},
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": _TENSOR},
        "outputs": {"type": "array", "items": _OUTPUT},
    },
}
"""What ``decode.from_tensors`` reads."""
_EXAMPLE = {"inputs": [{"name": INPUT, "datatype": DATATYPE, "shape": [1, 1, 2, 3], "data": [0, 0, 0, 255, 255, 255]}]}
INFER_BODY = {"required": True, "content": {"application/json": {"schema": _REQUEST, "example": _EXAMPLE}}}
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"description": "no process that decodes lives, or no worker", "content": {"application/json": {}}}
}
BINARY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}

# ------------------------------------------------------------------ routes


def router(detector: Detector, pipeline: Pipeline, bodies: Bodies) -> APIRouter:
    """The routes under ``/v2``; those of the model with its version in the path as well."""
    card = detector.card
    routes = APIRouter(prefix="/v2")

    @routes.get("", summary="The server", responses=documented(401, 403, 421))
    async def server() -> dict[str, Any]:
        return {"name": "squeezedet", "version": __version__, "extensions": ["binary_tensor_data"]}

    @routes.get("/health/live", summary="Whether the server lives", responses=documented(403, 421))
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/health/ready", summary="Whether it is ready", responses=documented(403, 421) | NOT_READY)
    async def ready(response: Response) -> dict[str, bool]:
        response.status_code = 200 if pipeline.ready else 503
        return {"ready": pipeline.ready}

    the_name, the_version = (Path(json_schema_extra={"enum": [value]}) for value in (card.name, VERSION))

    def check_name(name: str = the_name) -> None:
        if FORMER_NAMES.get(name, name) != card.name:
            raise ProblemError(404, f"no such model; this server has {card.name!r}", "model")

    def check_version(version: str = the_version) -> None:
        if version != VERSION:
            raise ProblemError(404, f"the model has one version, {VERSION}", "model")

    of_model = _model_routes(card, detector.engine.name, pipeline, bodies)
    named, versioned = Depends(check_name), Depends(check_version)
    routes.include_router(of_model, prefix="/models/{name}", dependencies=[named])
    routes.include_router(of_model, prefix="/models/{name}/versions/{version}", dependencies=[named, versioned])
    return routes


def _model_routes(card: Card, platform: str, pipeline: Pipeline, bodies: Bodies) -> APIRouter:
    routes = APIRouter()

    @routes.get("", summary="The model", responses=documented(401, 403, 404, 421))
    async def model() -> dict[str, Any]:
        outputs = [{"name": name, "datatype": OUTPUTS[name], "shape": SHAPES[name]} for name in OUTPUTS]
        return {
            "name": card.name,
            "versions": [VERSION],
            "platform": platform,
            "inputs": [{"name": INPUT, "datatype": DATATYPE, "shape": [1, -1, -1, 3]}],
            "outputs": outputs,
        }

    @routes.get("/ready", summary="Whether the model is ready", responses=documented(401, 403, 404, 421) | NOT_READY)
    async def model_ready(response: Response) -> dict[str, Any]:
        response.status_code = 200 if pipeline.ready else 503
        return {"name": card.name, "ready": pipeline.ready}

    @routes.post(
        "/infer",
        summary="Detect in a tensor",
        response_model=InferAnswer,
        responses=documented(400, 401, 403, 404, 408, 413, 415, 421, 422, 500, 503, 504) | BINARY_ANSWER,
        openapi_extra={"requestBody": INFER_BODY},
    )
    async def infer(request: Request) -> Any:
        """Tensors as JSON numbers, or as bytes behind the JSON (binary tensor extension)."""
        address = connection_of(request.scope).address
        pipeline.check_room(address)
        async with bodies.read(request) as body, pipeline.place(address):
            image = await pipeline.tensors(body, _header_bytes(request), address)
            found = await pipeline.infer(image, image.request["score"])
        return _answer(card, image.request, found)

    return routes


def _header_bytes(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ProblemError(400, f"{HEADER_LENGTH} must be a number of bytes", "malformed")
    return int(text)


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
    headers = {HEADER_LENGTH: str(len(text))}
    return Response(b"".join((text, *tail)), media_type="application/octet-stream", headers=headers)
