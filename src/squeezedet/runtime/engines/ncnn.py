"""ncnn on the processor: runs the convolutions of an exported model.ncnn.param.

The file holds SqueezeDet up to ConvDet's map; what follows is decoded in NumPy.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.preprocess import STRIDE
from squeezedet.runtime.card import Card
from squeezedet.runtime.engines import raw_boxes
from squeezedet.runtime.postprocess import RawBoxes

# ---------------------------------------------------------------- decoding

MAX_ANCHORS = 1000
EXP_THRESHOLD = 1.0


@dataclass(frozen=True, slots=True)
class ConvDetDecoder:
    """What turns ConvDet's map into boxes.

    Attributes:
        classes: number of classes.
        anchors: (width, height) of each anchor in pixels of the input.
    """

    classes: int
    anchors: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, card: Card) -> ConvDetDecoder:
        """The decoder of a model, from the configuration in its card.

        Raises:
            ModelError: the model is no ConvDet of the default geometry, or its card says too
                little.
        """
        try:
            config = card.training["config"]
            if config["detector"] != "convdet" or config["geometry"] != "default":
                raise ValueError("only ConvDet of the default geometry is decoded in NumPy")
            anchors = tuple((float(width), float(height)) for width, height in config["anchors"])
            if not 0 < len(anchors) <= MAX_ANCHORS:
                raise ValueError(f"{len(anchors)} anchors")
            if not all(0 < side < 1e6 for anchor in anchors for side in anchor):
                raise ValueError("an anchor's side is no length")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"{card.name}: the card holds no ConvDet to decode: {error}") from error
        return cls(len(card.classes), anchors)

    def __call__(self, raw: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """ConvDet's map to boxes of every anchor, ordered by row, column, anchor.

        Args:
            raw: (K * (C + 5), rows, columns): for each of K anchors C class logits, then K
                confidence logits, then K x 4 deltas.

        Returns:
            (1, A, 4) xyxy boxes inside the input, (1, A) scores, (1, A) class ids.

        Raises:
            ModelError: the map has another number of channels.
        """
        k, c = len(self.anchors), self.classes
        if raw.ndim != 3 or len(raw) != k * (c + 5):
            raise ModelError(
                f"the model gives a map of the shape {raw.shape}; {k} anchors and {c} classes "
                f"need {k * (c + 5)} channels"
            )
        rows, columns = raw.shape[1:]
        cells = np.ascontiguousarray(raw.reshape(len(raw), -1).T)
        logits = cells[:, : k * c].reshape(-1, c)
        confidence = cells[:, k * c : k * (c + 1)].reshape(-1)
        deltas = cells[:, k * (c + 1) :].reshape(-1, 4)
        class_id = logits.argmax(axis=1)
        with np.errstate(over="ignore"):  # exp(1000) is infinite, and 1 / infinity is right
            best = logits.max(axis=1, keepdims=True)
            probability = 1 / np.exp(logits - best).sum(axis=1)
            score = probability / (1 + np.exp(-confidence))
        boxes = _boxes(deltas, _anchors(self.anchors, rows, columns), rows, columns)
        return boxes[None], score[None], class_id[None].astype(np.int64, copy=False)


def _boxes(deltas: NDArray[np.float32], anchors: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """(A, 4) deltas to (A, 4) xyxy (eq. 1); exp is replaced by its tangent e * x above 1."""
    growth = deltas[:, 2:]
    scale = np.where(growth > EXP_THRESHOLD, np.float32(np.e) * growth, np.exp(np.minimum(growth, EXP_THRESHOLD)))
    center = anchors[:, :2] + anchors[:, 2:] * deltas[:, :2]
    half = anchors[:, 2:] * scale / 2
    limit = np.array([columns, rows], np.float32) * STRIDE
    return np.concatenate([np.clip(center - half, 0, limit), np.clip(center + half, 0, limit)], axis=1)


@lru_cache(maxsize=8)
def _anchors(shapes: tuple[tuple[float, float], ...], rows: int, columns: int) -> NDArray[np.float32]:
    """(A, 4) anchors: center (that of the cell), width, height."""
    anchors = np.empty((rows, columns, len(shapes), 4), np.float32)
    anchors[..., 0] = ((np.arange(columns) + 0.5) * STRIDE)[None, :, None]
    anchors[..., 1] = ((np.arange(rows) + 0.5) * STRIDE)[:, None, None]
    anchors[..., 2:] = shapes
    return anchors.reshape(-1, 4)


# ---------------------------------------------------------------- engine

INPUT, OUTPUT = "in0", "out0"
"""The blobs' names, as pnnx gives them: (3, H, W) RGB of 0 to 255 in, ConvDet's map out."""


class NcnnEngine:
    """Runs a network in ncnn's own files: uint8 pixels in, the boxes of every anchor out.

    Args:
        card: of the model; its numbers decode the map.
        param: the text of model.ncnn.param.
        weights: the bytes of model.ncnn.bin.
        threads: processor threads; None for all cores.

    Raises:
        MissingExtraError: ncnn is not installed.
        ModelError: ncnn cannot read the files, or they hold no detector of ours.
    """

    name = "ncnn"

    def __init__(self, card: Card, param: bytes, weights: bytes, threads: int | None = None) -> None:
        try:
            import ncnn
        except ImportError as error:
            raise MissingExtraError("the engine ncnn", "ncnn") from error
        self._ncnn = ncnn
        self._process = os.getpid()
        self._decode = ConvDetDecoder.of(card)
        self._net = ncnn.Net()
        options = self._net.opt
        # Everything in float32: 16-bit arithmetic is faster on ARM, and moves boxes by pixels.
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        if threads:
            options.num_threads = threads
        self._load(param, weights)

    def _load(self, param: bytes, weights: bytes) -> None:
        try:
            read = self._net.load_param_mem(param.decode()) == 0
        except UnicodeDecodeError:
            read = False
        if read:
            # Given bytes in memory, ncnn reads beyond their end; of a file it knows the length.
            with tempfile.TemporaryDirectory(prefix="squeezedet-") as folder:
                path = Path(folder) / "model.ncnn.bin"
                path.write_bytes(weights)
                read = self._net.load_model(str(path)) == 0
        if not read:
            version = self._ncnn.__version__
            raise ModelError(f"ncnn {version} cannot read the model: the files are damaged")
        names = (tuple(self._net.input_names()), tuple(self._net.output_names()))
        if names != ((INPUT,), (OUTPUT,)):
            raise ModelError(
                f"the network takes {names[0]} and gives {names[1]}; a detector takes {INPUT!r} and gives {OUTPUT!r}"
            )

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """Pixels to the boxes of every anchor; see ``Engine``."""
        if os.getpid() != self._process:  # ncnn's threads do not survive a fork: the run would hang
            raise ModelError(
                "the engine ncnn was opened before this process was forked, and its "
                "threads are not here: call squeezedet.load in the worker"
            )
        height, width = pixels.shape[:2]
        kind = self._ncnn.Mat.PixelType.PIXEL_RGB
        image = self._ncnn.Mat.from_pixels(np.ascontiguousarray(pixels), kind, width, height)
        extractor = self._net.create_extractor()
        extractor.input(INPUT, image)
        code, found = extractor.extract(OUTPUT)
        if code != 0:
            raise ModelError(f"the model fails on an input of {width}x{height} pixels")
        return raw_boxes(*self._decode(np.asarray(found)))
