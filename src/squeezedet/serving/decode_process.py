"""The process that decodes: ``python -m squeezedet.serving.decode_process RULE LIMITS``.

Whatever a stranger sends is decoded here and not in the server: an image that needs too much
memory or time ends this process alone. Standard input carries tasks, standard output answers;
each is two lengths (big-endian, 4 bytes each), then JSON, then bytes. A first message says that
it is ready. It ends with its input.
"""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from squeezedet.errors import DataError
from squeezedet.media.images import read_image
from squeezedet.preprocess import InputRule, fit

# ---- prepare: From the body of a request to what the network sees; this runs in the decoders' pr

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


# ---- decode_process: The process that decodes: ``python -m squeezedet.serving.decode_process RUL

LENGTHS = struct.Struct("!II")
BASE_BYTES = 400_000_000
"""Address space of Python, NumPy and Pillow with their codecs (120 MB on Linux), thrice."""
PIXEL_BYTES = 32
"""Pillow's and NumPy's copies of one pixel at the worst (transparent, turned): seven of 4 bytes."""
JSON_FACTOR = 30
"""Python's lists of a text that is all brackets, in bytes a byte."""
NICE = 5
"""The network goes before the decoding of further images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one decoder.

    Attributes:
        max_pixels: of one image.
        max_bytes: of one body.
        seconds: of processor time for one task.
    """

    max_pixels: int
    max_bytes: int
    seconds: float


def pack(header: dict[str, Any], content: bytes | memoryview) -> bytes:
    """One message."""
    text = json.dumps(header).encode()
    return b"".join((LENGTHS.pack(len(text), len(content)), text, content))


def answer(header: dict[str, Any], body: bytes, rule: InputRule, limits: Limits) -> bytes:
    """One task done: the message with the pixels, or with the sentence that refuses it."""
    try:
        done = _prepare(header, body, rule, limits)
    except DataError as error:
        return pack({"error": str(error)}, b"")
    except MemoryError:
        return pack({"error": "the image needs too much memory"}, b"")
    fields = {
        "shape": done.pixels.shape,
        "width": done.width,
        "height": done.height,
        "timing_ms": done.timing_ms,
        "request": done.request,
    }
    return pack(fields, done.pixels.tobytes())


def _prepare(header: dict[str, Any], body: bytes, rule: InputRule, limits: Limits) -> Prepared:
    if header["kind"] == "image":
        return from_image(body, rule, limits.max_pixels)
    return from_tensors(body, header["header_bytes"], rule, limits.max_pixels)


def _confine(limits: Limits) -> None:
    """Set this process's limits; Windows knows none of them."""
    # A stop is the server's to decide: it closes standard input when the last answer is out.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "win32":
        return
    import resource

    most = max(PIXEL_BYTES * limits.max_pixels, JSON_FACTOR * MAX_JSON_BYTES)
    space = BASE_BYTES + 3 * limits.max_bytes + most
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > space:
        resource.setrlimit(resource.RLIMIT_AS, (space, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICE)


def _limit_time(seconds: float) -> None:
    """End this process by SIGPROF after so much processor time; 0 for no end.

    Not by the clock: on a busy machine a good image waits, and is not to blame.
    """
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _read(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    text, content = LENGTHS.unpack(lengths)
    return json.loads(stream.read(text)), stream.read(content)


def main() -> None:
    """Answer tasks until standard input ends."""
    rule, limits = InputRule(**json.loads(sys.argv[1])), Limits(**json.loads(sys.argv[2]))
    _confine(limits)
    PIL.Image.init()  # the codecs, before the first client waits for them
    _send(pack({"ready": True}, b""))
    while task := _read(sys.stdin.buffer):
        _limit_time(limits.seconds)
        _send(answer(*task, rule, limits))
        _limit_time(0)


def _send(message: bytes) -> None:
    sys.stdout.buffer.write(message)
    sys.stdout.buffer.flush()


def arguments(rule: InputRule, limits: Limits) -> list[str]:
    """The command line of a decoder."""
    module = "squeezedet.serving.decode_process"
    return [sys.executable, "-m", module, json.dumps(asdict(rule)), json.dumps(asdict(limits))]


if __name__ == "__main__":
    main()
