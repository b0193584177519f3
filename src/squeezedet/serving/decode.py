"""The process that decodes: ``python -m squeezedet.serving.decode RULE LIMITS``.

Whatever a stranger sends is decoded here and not in the server: an image that needs too much memory or time ends
this process alone. Standard input carries tasks, standard output answers; each is two lengths (big-endian, 4 bytes
each), then JSON, then bytes. A first message says that it is ready. It ends with its input.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
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
from squeezedet.media.images import FORMATS, read_image
from squeezedet.preprocess import InputRule, fit

# ------------------------------------------------------------------ preparing

INPUT = "images"
DATATYPE = "UINT8"
OUTPUTS = ("boxes", "scores", "class_ids")
MAX_JSON_BYTES = 8_000_000
"""1248x384 pixels as numbers are 5 million signs; more pixels go as bytes."""
MAX_JSON_DEPTH = 16
"""A tensor whose numbers are nested as its shape says needs 7."""
MAX_ID = 1024
LARGE_PIXELS = 2_100_000
"""What takes more work than so many pixels has a lane of its own: 1920x1080 does not."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One image, decoded and resized.

    Attributes:
        pixels: (height, width, 3) uint8 RGB, of a size that the model's input rule gives.
        width, height: of the image before that.
        timing_ms: of ``load`` and ``preprocess``.
        request: what else a request of the inference protocol says: ``id`` and ``score``, each perhaps None, and
            ``binary``, output -> whether it is wanted as bytes.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    timing_ms: dict[str, float]
    request: dict[str, Any] = field(default_factory=dict)


def from_image(body: bytes, rule: InputRule, max_pixels: int) -> Prepared:
    """An encoded image (JPEG, PNG, ...); a DataError if it is empty, no image, damaged or too large."""
    frame = read_image(body, "image", max_pixels)
    return _resized(frame.pixels, rule, frame.load_ms, {})


def from_tensors(body: bytes, header_bytes: int | None, rule: InputRule, max_pixels: int) -> Prepared:
    """A request of the Open Inference Protocol with one image of (1, H, W, 3) uint8 RGB.

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
    return _resized(pixels, rule, (time.perf_counter() - start) * 1000, _wanted(request))


def _resized(pixels: NDArray[np.uint8], rule: InputRule, load_ms: float, request: dict[str, Any]) -> Prepared:
    start = time.perf_counter()
    height, width = pixels.shape[:2]
    fitted = fit(pixels, rule)
    timing = {"load": load_ms, "preprocess": (time.perf_counter() - start) * 1000}
    return Prepared(fitted, width, height, timing, request)


def _parse(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_JSON_BYTES:
        raise DataError(f"more than {MAX_JSON_BYTES} bytes of JSON; send the tensor as bytes")
    if _depth(text) > MAX_JSON_DEPTH:
        raise DataError(f"the JSON is nested more than {MAX_JSON_DEPTH} deep")
    try:
        request = json.loads(text)
    except MemoryError as error:
        raise DataError("the JSON needs too much memory; send the tensor as bytes") from error
    except (ValueError, RecursionError) as error:
        raise DataError("the body, or its header, is no JSON") from error
    if not isinstance(request, dict):
        raise DataError("the JSON must be an object with the field 'inputs'")
    return request


def _depth(text: bytes) -> int:
    """How deep the brackets of a JSON text are nested, those in strings left out."""
    signs = np.frombuffer(_STRING.sub(b"", text), np.uint8)
    steps = np.zeros(len(signs) + 1, np.int8)
    steps[1:] += (signs == ord("[")) | (signs == ord("{"))
    steps[1:] -= (signs == ord("]")) | (signs == ord("}"))
    return int(np.cumsum(steps, dtype=np.int32).max())


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def _wanted(request: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says beside its tensor, checked; nothing else of it leaves this process."""
    name, parameters = request.get("id"), request.get("parameters", {})
    if "id" in request and not (isinstance(name, str) and len(name) <= MAX_ID):
        raise DataError(f"'id' must be a text of at most {MAX_ID} signs")
    if not isinstance(parameters, dict):
        raise DataError("'parameters' must be an object")
    as_bytes = _flag(parameters, "binary_data_output", False)
    outputs = request.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise DataError("'outputs' must be a list of objects with a name")
    binary = {}
    for output in outputs or [{"name": name} for name in OUTPUTS]:
        if output.get("name") not in OUTPUTS:
            raise DataError(f"the outputs are {', '.join(OUTPUTS)}; no others")
        own = output.get("parameters", {})
        if not isinstance(own, dict):
            raise DataError("the 'parameters' of an output must be an object")
        binary[output["name"]] = _flag(own, "binary_data", as_bytes)
    return {"id": name, "score": _score(parameters), "binary": binary}


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    flag = parameters.get(name, default)
    if not isinstance(flag, bool):
        raise DataError(f"the parameter {name} must be true or false")
    return flag


def _score(parameters: Mapping[str, Any]) -> float | None:
    if "score" not in parameters:
        return None
    score = parameters["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise DataError("the parameter score must be a number of 0 to 1")
    return float(score)


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
                f"the shape wants {count} bytes; binary_data_size must say so, and so many must follow the JSON"
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


# ------------------------------------------------------------------ the process

LENGTHS = struct.Struct("!II")
BASE_BYTES = 400_000_000
"""Address space of Python, NumPy and Pillow with their codecs (120 MB on Linux), thrice."""
PIXEL_BYTES = 32
"""Pillow's and NumPy's copies of one pixel at the worst (transparent, turned): seven of 4 bytes."""
JSON_FACTOR = 30
"""Python's lists of a text that is all brackets, in bytes a byte."""
SCANS = 5
"""So many scans of a JPEG are the work of decoding it once without."""
NICE = 10
"""The network goes before the decoding of further images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one decoder.

    Attributes:
        max_pixels: of one image.
        max_bytes: of one body.
        seconds: of processor time for one task.
        quick_seconds: the same for one that is not known to be large.
    """

    max_pixels: int
    max_bytes: int
    seconds: float
    quick_seconds: float = 0.5


def pack(header: dict[str, Any], content: bytes | memoryview) -> bytes:
    """One message."""
    text = json.dumps(header).encode()
    return b"".join((LENGTHS.pack(len(text), len(content)), text, content))


def answer(header: dict[str, Any], body: bytes, rule: InputRule, limits: Limits) -> bytes:
    """One task done: a message with the pixels, the sentence that refuses it, or ``large``: ask again as that."""
    try:
        if header["kind"] == "ping":
            return pack({}, b"")
        if header["kind"] == "tensors":
            done = from_tensors(body, header["header_bytes"], rule, limits.max_pixels)
        elif not header.get("large") and _is_large(body, limits):
            return pack({"large": True}, b"")
        else:
            done = from_image(body, rule, limits.max_pixels)
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


def _is_large(body: bytes, limits: Limits) -> bool:
    """Whether decoding needs much work, by the image's head; of a damaged one nothing is known."""
    try:
        with PIL.Image.open(io.BytesIO(body), formats=FORMATS) as picture:
            width, height = picture.size
    except Exception:
        return False
    scans = body.count(b"\xff\xda") if body.startswith(b"\xff\xd8") else 1
    pixels = width * height
    return pixels <= limits.max_pixels and pixels * max(1, scans / SCANS) > LARGE_PIXELS


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


def _read(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    text, content = LENGTHS.unpack(lengths)
    return json.loads(stream.read(text)), stream.read(content)


def _send(message: bytes) -> None:
    sys.stdout.buffer.write(message)
    sys.stdout.buffer.flush()


def _limit_time(seconds: float) -> None:
    """End this process by SIGPROF after so much processor time; 0 for no end.

    Not by the clock: on a busy machine a good image waits, and is not to blame.
    """
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    rule, limits = InputRule(**json.loads(sys.argv[1])), Limits(**json.loads(sys.argv[2]))
    _confine(limits)
    PIL.Image.init()  # the codecs, before the first client waits for them
    _send(pack({"ready": True}, b""))
    while task := _read(sys.stdin.buffer):
        quick = min(limits.seconds, limits.quick_seconds)
        _limit_time(limits.seconds if task[0].get("large") else quick)
        _send(answer(*task, rule, limits))
        _limit_time(0)


def arguments(rule: InputRule, limits: Limits) -> list[str]:
    """The command line of a decoder; -P: the folder in which the server runs holds no module."""
    module = "squeezedet.serving.decode"
    return [sys.executable, "-P", "-m", module, *(json.dumps(asdict(one)) for one in (rule, limits))]


if __name__ == "__main__":
    main()
