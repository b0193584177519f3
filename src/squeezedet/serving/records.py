"""What the routes answer, as the OpenAPI document describes it."""

from __future__ import annotations

from pydantic import BaseModel, Field


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
