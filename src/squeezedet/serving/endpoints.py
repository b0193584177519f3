"""``POST /detect``: an encoded image in, the record of ``squeezedet detect`` out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from squeezedet.serving.guard import Bodies
from squeezedet.serving.pipeline import Pipeline
from squeezedet.serving.problems import ProblemError, documented

# ---- records: What the routes answer, as the OpenAPI document describes it.


class Box(BaseModel):
    """One object."""

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


# ---- detect_route: ``POST /detect``: an encoded image in, the record of ``squeezedet detect`` ou

TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff")
ANY_TYPES = ("application/octet-stream", "application/x-www-form-urlencoded")
"""What clients say that do not know better; the second is curl's ``--data-binary``."""
BODY = {
    "required": True,
    "content": {
        kind: {"schema": {"type": "string", "format": "binary"}}
        for kind in (*TYPES, "application/octet-stream")
    },
}
Score = Annotated[
    float | None,
    Query(ge=0, le=1, description="Lowest score to report; the model's own by default."),
]


def router(pipeline: Pipeline, bodies: Bodies) -> APIRouter:
    """The route."""
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
        pipeline.check_room()
        async with bodies.read(request) as body:
            found = await pipeline.image(body, score)
        return JSONResponse(found.to_dict())

    return routes


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", ANY_TYPES[0]).partition(";")[0].strip().lower()
    if kind not in ANY_TYPES and not kind.startswith("image/"):
        raise ProblemError(
            415,
            "send the image itself as the body (Content-Type: image/jpeg, image/png, ... or "
            "application/octet-stream)",
            "type",
        )
