"""How a peer runs: published pixels in, ``Detections`` out, in onnxruntime or openvino.

The project's own engines take graphs with the decoding inside, which these lack. Images,
resizing, suppression and evaluation are the project's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peers.graphs import resize_graph
from peers.networks import Peer, Size
from squeezedet.boxes import area, clip, nms_per_class
from squeezedet.detections import STAGES, Detections
from squeezedet.errors import ModelError
from squeezedet.media.images import Frame
from squeezedet.preprocess import MAX_STRETCH, resize
from squeezedet.runtime.engines import import_onnxruntime, import_openvino

Floats = NDArray[np.float32]
Run = Callable[[Floats], Sequence[NDArray[Any]]]
FLOOR = 0.01
"""Score from which boxes are evaluated; published evaluations take 0.001 to 0.05."""
MOST = 100
"""Boxes an image, as in COCO's protocol."""
MAX_SIZES = 4
"""Opened graphs that are kept of one peer."""


# ------------------------------------------------------------ pixels


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies in the input: input = image * scale + offset, x and y apart."""

    scale: tuple[float, float]
    offset: tuple[int, int] = (0, 0)

    def to_image(self, xyxy: Floats) -> Floats:
        """(N, 4) boxes in pixels of the input to pixels of the image."""
        scale: Floats = np.array(self.scale * 2, np.float32)
        return (xyxy - np.array(self.offset * 2, np.float32)) / scale


def stretch(pixels: NDArray[np.uint8], size: Size) -> tuple[NDArray[np.uint8], Placement]:
    """(H, W, 3) uint8 to (height, width, 3), whatever that does to the shape of things."""
    height, width = pixels.shape[:2]
    return resize(pixels, size), Placement((size[0] / width, size[1] / height))


def letterbox(pixels: NDArray[np.uint8], size: Size, fill: int, *, center: bool) -> tuple[NDArray[np.uint8], Placement]:
    """(H, W, 3) uint8 to (height, width, 3) in its own shape, the rest of one gray.

    An image that is only a little smaller than the input keeps its pixels, as our own do.

    Args:
        pixels: the image.
        size: (width, height) of the input.
        fill: value of the pixels beside the image.
        center: the image lies in the middle; if not, at the upper left.
    """
    height, width = pixels.shape[:2]
    scale = _scale((width, height), size)
    if 1 <= scale <= MAX_STRETCH:
        scale = 1.0
    # Rounded where YOLOX's code cuts: that is one row of 126 at 1242x375, and its boxes fit better.
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = ((size[0] - w) // 2, (size[1] - h) // 2) if center else (0, 0)
    answer = np.full((size[1], size[0], 3), fill, np.uint8)
    answer[y : y + h, x : x + w] = resize(pixels, (w, h))
    return answer, Placement((scale, scale), (x, y))


@lru_cache(maxsize=256)
def fitted_size(image: Size, pixels: int, multiple: int) -> Size:
    """The input of at most so many pixels in which an image of a size is largest in its own shape."""
    sides = range(multiple, pixels // multiple + 1, multiple)
    sizes = [(width, height) for height in sides for width in sides if width * height <= pixels]
    return max(sizes, key=lambda size: (_scale(image, size), -size[0] * size[1]))


def input_size(peer: Peer, image: Size, pixels: int | None) -> Size:
    """Of a peer for an image: its own, or at most so many pixels."""
    return peer.size if pixels is None or peer.multiple is None else fitted_size(image, pixels, peer.multiple)


def _scale(image: Size, size: Size) -> float:
    return min(size[0] / image[0], size[1] / image[1])


def prepare(pixels: NDArray[np.uint8], peer: Peer, size: Size) -> tuple[Floats, Placement]:
    """(H, W, 3) uint8 RGB to the (1, 3, height, width) float32 that a peer wants."""
    if size == peer.size and peer.layout == "stretch":
        inside, placement = stretch(pixels, size)
    else:
        inside, placement = letterbox(pixels, size, peer.fill, center=peer.layout == "center")
    tensor = np.empty((1, 3, size[1], size[0]), np.float32)
    for k in range(3):
        tensor[0, k] = inside[..., 2 - k if peer.bgr else k]
        if peer.mean[k]:
            tensor[0, k] -= peer.mean[k]
        if peer.deviation[k] != 1:
            tensor[0, k] /= peer.deviation[k]
    return tensor, placement


# ------------------------------------------------------------ engines


def open_onnxruntime(graph: bytes, weights: bytes, threads: int | None) -> Run:
    """A function that runs an ONNX graph."""
    onnxruntime = import_onnxruntime()
    if weights:
        raise ModelError("onnxruntime does not read OpenVINO's files")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # As our own engine does: threads that spin would be in the way of the next contender.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(None, {name: tensor})


def open_openvino(graph: bytes, weights: bytes, threads: int | None) -> Run:
    """A function that runs an ONNX graph, or OpenVINO's XML with its weights."""
    core = import_openvino().Core()
    model = core.read_model(graph, weights) if weights else core.read_model(graph)
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    request = core.compile_model(model, "CPU", config).create_infer_request()

    def run(tensor: Floats) -> Sequence[NDArray[Any]]:
        request.infer({0: tensor}, share_inputs=True)
        return [output.data for output in request.output_tensors]

    return run


OPENERS = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


# ------------------------------------------------------------ detector


class PeerDetector:
    """A peer in an engine, ready to detect.

    Args:
        peer: which one.
        graph: its ONNX, or OpenVINO's XML.
        weights: OpenVINO's weights; empty with ONNX.
        engine: a key of ``OPENERS``.
        pixels: of the input, which then takes each image's shape; None for the peer's own input.
        threads: processor threads; None for all cores.

    Raises:
        ModelError: the engine cannot run it.
    """

    def __init__(
        self,
        peer: Peer,
        graph: bytes,
        weights: bytes = b"",
        *,
        engine: str = "onnxruntime",
        pixels: int | None = None,
        threads: int | None = None,
    ) -> None:
        self._peer, self._graph, self._weights = peer, graph, weights
        self._engine, self._pixels, self._threads = engine, pixels, threads
        self._runs = lru_cache(maxsize=MAX_SIZES)(self._open)
        if pixels is None:
            self._runs(peer.size)

    def _open(self, size: Size) -> Run:
        graph = resize_graph(self._graph, size) if self._pixels else self._graph
        try:
            return OPENERS[self._engine](graph, self._weights, self._threads)
        except Exception as error:  # engines' errors share no base class
            raise ModelError(f"{self._peer.name}: {self._engine} cannot run it: {error}") from error

    def prepare(self, frame: Frame) -> tuple[Floats, Placement]:
        """The tensor that the network gets, and where the image lies in it."""
        height, width = frame.pixels.shape[:2]
        return prepare(frame.pixels, self._peer, input_size(self._peer, (width, height), self._pixels))

    def detect(self, frame: Frame, score: float = FLOOR) -> Detections:
        """The road's classes in one frame; ``timing_ms`` says what each stage took."""
        start = time.perf_counter()
        tensor, placement = self.prepare(frame)
        prepared = time.perf_counter()
        size = tensor.shape[3], tensor.shape[2]
        outputs = self._runs(size)(tensor)
        ran = time.perf_counter()
        xyxy, scores, class_id = self._peer.decode(outputs, size, score)
        if self._peer.nms_iou is not None:
            kept = nms_per_class(xyxy, scores, class_id, self._peer.nms_iou)[:MOST]
            xyxy, scores, class_id = xyxy[kept], scores[kept], class_id[kept]
        height, width = frame.pixels.shape[:2]
        xyxy = clip(placement.to_image(xyxy), width, height).astype(np.float32)
        inside = area(xyxy) > 0
        seconds = (after - before for before, after in pairwise((start, prepared, ran, time.perf_counter())))
        return Detections(
            xyxy[inside],
            scores[inside],
            class_id[inside],
            self._peer.classes,
            image=frame.name,
            width=width,
            height=height,
            timing_ms=dict(zip(STAGES, (frame.load_ms, *(1000 * s for s in seconds)), strict=True)),
        )
