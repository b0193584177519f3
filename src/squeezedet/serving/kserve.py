"""The Open Inference Protocol (KServe v2) over HTTP, with its binary tensors.

One model; input ``images`` UINT8 [1, H, W, 3], RGB, of any size; outputs after NMS, in pixels of
that image: ``boxes`` FP32 [1, N, 4] (x1, y1, x2, y2), ``scores`` FP32 [1, N], ``class_ids`` INT64
[1, N]. The request's parameter ``score`` is the lowest score to report.
https://github.com/kserve/open-inference-protocol (the tensors' bytes: Triton's extension)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from pydantic import BaseModel

from squeezedet.detections import Detections
from squeezedet.runtime.card import Card
from squeezedet.serving.decode_process import DATATYPE, INPUT
from squeezedet.serving.guard import Bodies
from squeezedet.serving.pipeline import Pipeline
from squeezedet.serving.problems import ProblemError, documented
from squeezedet.version import __version__

# ---- kserve_answer: Which outputs an inference request wants, and how they are written.

OUTPUTS = {"boxes": "FP32", "scores": "FP32", "class_ids": "INT64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request says beside its tensor.

    Attributes:
        id: to be repeated; None if there was none.
        score: lowest score to report; None for the model's own.
        binary: output -> whether it goes as bytes; in the order of the answer.
    """

    id: str | None
    score: float | None
    binary: Mapping[str, bool]


def wanted(request: Mapping[str, Any]) -> Wanted:
    """Read the fields that ``prepare.from_tensors`` kept.

    Raises:
        ProblemError: an output is unknown, or a parameter is no good.
    """
    parameters = request.get("parameters", {})
    as_bytes = _flag(parameters, "binary_data_output", False)
    outputs = request.get("outputs") or [{"name": name} for name in OUTPUTS]
    unknown = [output for output in outputs if output["name"] not in OUTPUTS]
    if unknown:
        raise ProblemError(400, f"the outputs are {', '.join(OUTPUTS)}; no others", "malformed")
    binary = {
        output["name"]: _flag(output.get("parameters", {}), "binary_data", as_bytes)
        for output in outputs
    }
    return Wanted(id=request.get("id"), score=_score(parameters), binary=binary)


def encode(
    head: Mapping[str, Any], outputs: Wanted, arrays: Mapping[str, NDArray[Any]]
) -> tuple[bytes, int | None]:
    """The body of the answer, and the length of its JSON if bytes follow (else None).

    Args:
        head: first fields of the JSON.
        outputs: what is wanted.
        arrays: every output, little-endian.
    """
    answer = dict(head)
    if outputs.id is not None:
        answer["id"] = outputs.id
    tail: list[bytes] = []
    answer["outputs"] = []
    for name, binary in outputs.binary.items():
        array = arrays[name]
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": OUTPUTS[name],
            "shape": list(array.shape),
        }
        if binary:
            tail.append(array.tobytes())
            tensor["parameters"] = {"binary_data_size": array.nbytes}
        else:
            tensor["data"] = array.ravel().tolist()
        answer["outputs"].append(tensor)
    text = json.dumps(answer).encode()
    return b"".join((text, *tail)), len(text) if tail else None


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    flag = parameters.get(name, default)
    if not isinstance(flag, bool):
        raise ProblemError(400, f"the parameter {name} must be true or false", "malformed")
    return flag


def _score(parameters: Mapping[str, Any]) -> float | None:
    if "score" not in parameters:
        return None
    score = parameters["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ProblemError(400, "the parameter score must be a number of 0 to 1", "malformed")
    return float(score)


# ---- kserve_records: The objects of the Open Inference Protocol, for the OpenAPI document.


class ServerMetadata(BaseModel):
    """Of the server."""

    name: str
    version: str
    extensions: list[str]


class HealthLive(BaseModel):
    """The server lives."""

    live: bool


class HealthReady(BaseModel):
    """The server is ready."""

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


BINARY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    }
}
_FLAG: dict[str, Any] = {"type": "boolean"}
_SIDE: dict[str, Any] = {"type": "integer", "minimum": 1}
INFER_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "score": {"type": "number", "minimum": 0, "maximum": 1},
                            "binary_data_output": _FLAG,
                        },
                    },
                    "inputs": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["name", "datatype", "shape", "data"],
                            "properties": {
                                "name": {"const": INPUT},
                                "datatype": {"const": DATATYPE},
                                "shape": {
                                    "type": "array",
                                    "prefixItems": [{"const": 1}, _SIDE, _SIDE, {"const": 3}],
                                    "items": False,
                                    "minItems": 4,
                                    "description": "[1, height, width, 3]",
                                },
                                "data": {
                                    "type": "array",
                                    "description": "0 to 255, nested or flat, in row order",
                                },
                                "parameters": {"type": "object"},
                            },
                        },
                    },
                    "outputs": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {
                                "name": {"enum": ["boxes", "scores", "class_ids"]},
                                "parameters": {
                                    "type": "object",
                                    "properties": {"binary_data": _FLAG},
                                },
                            },
                        },
                    },
                },
                "example": {
                    "inputs": [
                        {
                            "name": INPUT,
                            "datatype": DATATYPE,
                            "shape": [1, 1, 2, 3],
                            "data": [0, 0, 0, 255, 255, 255],
                        }
                    ]
                },
            }
        }
    },
}


# ---- kserve: The Open Inference Protocol (KServe v2) over HTTP, with its binary tensors.

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
