"""The objects of the Open Inference Protocol, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from squeezedet.serving.prepare import DATATYPE, INPUT


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
