"""The process that decodes: ``python -m squeezedet.serving.decode_process RULE LIMITS``.

Whatever a stranger sends is decoded here and not in the server: an image that needs too much
memory or time ends this process alone. Standard input carries tasks, standard output answers;
each is two lengths (big-endian, 4 bytes each), then JSON, then bytes. A first message says that
it is ready. It ends with its input.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import PIL.Image

from squeezedet.errors import DataError
from squeezedet.runtime.preprocess import InputRule
from squeezedet.serving.prepare import MAX_JSON_BYTES, Prepared, from_image, from_tensors

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
