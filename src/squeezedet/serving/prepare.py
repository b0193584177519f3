"""From the body of a request to what the network sees; this runs in the decoders' processes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import DataError
from squeezedet.media.images import read_image
from squeezedet.runtime.preprocess import InputRule, fit

INPUT = "images"
DATATYPE = "UINT8"
MAX_JSON_BYTES = 8_000_000
"""1248x384 pixels as numbers are 5 million signs; more pixels go as bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One image, decoded and resized.

    Attributes:
        pixels: (height, width, 3) uint8 RGB, of a size that the model's input rule gives.
        width, height: of the image before that.
        timing_ms: of ``load`` and ``preprocess``.
        request: what else a request of the inference protocol says, see ``from_tensors``.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    timing_ms: dict[str, float]
    request: dict[str, Any] = field(default_factory=dict)


def from_image(body: bytes, rule: InputRule, max_pixels: int) -> Prepared:
    """An encoded image (JPEG, PNG, ...).

    Raises:
        DataError: it is empty, no image, damaged or too large.
    """
    frame = read_image(body, "image", max_pixels)
    return _resized(frame.pixels, rule, frame.load_ms, {})


def from_tensors(
    body: bytes, header_bytes: int | None, rule: InputRule, max_pixels: int
) -> Prepared:
    """A request of the Open Inference Protocol with one image of (1, H, W, 3) uint8 RGB.

    ``Prepared.request`` holds its ``id``, its ``parameters`` and its wanted ``outputs``, as far
    as they are there.

    Args:
        body: JSON, and behind it the tensor's bytes if it is sent as such.
        header_bytes: length of the JSON; None if the body is nothing else.
        rule: of the model.
        max_pixels: an image of more is refused.

    Raises:
        DataError: the request is malformed.
    """
    start = time.perf_counter()
    split = len(body) if header_bytes is None else header_bytes
    if split > len(body):
        raise DataError("Inference-Header-Content-Length is more than the length of the body")
    request = _parse(body[:split])
    tensor = _only_input(request)
    height, width = _shape(tensor)
    if width * height > max_pixels:
        raise DataError(f"{width}x{height} pixels are more than the limit of {max_pixels}")
    pixels = _pixels(tensor, body[split:]).reshape(height, width, 3)
    fields = ("id", "parameters", "outputs")
    kept: dict[str, Any] = {key: request[key] for key in fields if key in request}
    return _resized(pixels, rule, (time.perf_counter() - start) * 1000, kept)


def _resized(
    pixels: NDArray[np.uint8], rule: InputRule, load_ms: float, request: dict[str, Any]
) -> Prepared:
    start = time.perf_counter()
    height, width = pixels.shape[:2]
    fitted = fit(pixels, rule)
    timing = {"load": load_ms, "preprocess": (time.perf_counter() - start) * 1000}
    return Prepared(fitted, width, height, timing, request)


def _parse(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_JSON_BYTES:
        raise DataError(f"more than {MAX_JSON_BYTES} bytes of JSON; send the tensor as bytes")
    try:
        request = json.loads(text)
    except MemoryError as error:
        raise DataError("the JSON needs too much memory; send the tensor as bytes") from error
    except (ValueError, RecursionError) as error:
        raise DataError("the body, or its header, is no JSON") from error
    if not isinstance(request, dict):
        raise DataError("the JSON must be an object with the field 'inputs'")
    _check_fields(request)
    return request


def _check_fields(request: Mapping[str, Any]) -> None:
    """The fields beside the inputs; which outputs there are is known elsewhere."""
    if not isinstance(request.get("id", ""), str):
        raise DataError("'id' must be a text")
    if not isinstance(request.get("parameters", {}), dict):
        raise DataError("'parameters' must be an object")
    outputs = request.get("outputs", [])
    if not isinstance(outputs, list) or not all(
        isinstance(output, dict)
        and isinstance(output.get("name"), str)
        and isinstance(output.get("parameters", {}), dict)
        for output in outputs
    ):
        raise DataError("'outputs' must be a list of objects with a name")


def _only_input(request: Mapping[str, Any]) -> dict[str, Any]:
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise DataError(f"'inputs' must be a list of one object, the tensor {INPUT!r}")
    tensor: dict[str, Any] = inputs[0]
    if tensor.get("name") != INPUT or tensor.get("datatype") != DATATYPE:
        raise DataError(f"the input must have the name {INPUT!r} and the datatype {DATATYPE!r}")
    return tensor


def _shape(tensor: Mapping[str, Any]) -> tuple[int, int]:
    match tensor.get("shape"):
        case [1, int(height), int(width), 3] if height > 0 and width > 0:
            return height, width
    raise DataError("the shape of the input must be [1, height, width, 3], one image at a time")


def _pixels(tensor: Mapping[str, Any], content: bytes) -> NDArray[np.uint8]:
    """The flat tensor, from the bytes behind the JSON or from numbers in it."""
    count = math.prod(tensor["shape"])
    parameters = tensor.get("parameters", {})
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        if size != count or len(content) != count:
            raise DataError(
                f"the shape wants {count} bytes; binary_data_size must say so, and so many must "
                "follow the JSON"
            )
        return np.frombuffer(content, np.uint8)
    if content or "data" not in tensor:
        raise DataError("the input needs 'data', or 'binary_data_size' and bytes behind the JSON")
    return _numbers(tensor["data"], count)


def _numbers(data: Any, count: int) -> NDArray[np.uint8]:
    try:
        numbers = np.array(data)
    except (ValueError, OverflowError, MemoryError) as error:  # ValueError: ragged, or too deep
        raise DataError("'data' must be a list of numbers, nested or flat") from error
    if numbers.size != count or numbers.dtype.kind != "i":
        raise DataError(f"'data' must hold {count} integers, as the shape says")
    if numbers.min() < 0 or numbers.max() > 255:
        raise DataError("the numbers in 'data' must be 0 to 255")
    return numbers.astype(np.uint8).ravel()
