"""Detector: an image goes in, ``Detections`` come out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from squeezedet.detections import Detections
from squeezedet.errors import DataError, ModelError, UsageError
from squeezedet.media.images import Frame, frame_of, read_image
from squeezedet.preprocess import fit
from squeezedet.runtime import DEFAULT_MODEL, bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines.select import select_engine
from squeezedet.runtime.postprocess import RawBoxes, Selection, report, to_original

if TYPE_CHECKING:
    from PIL.Image import Image


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    engine: str | None = None,
    threads: int | None = None,
    affinity: Sequence[int] | None = None,
) -> Detector:
    """Load a detector.

    Args:
        model: the name of a shipped model, or the path of a bundle or of a file made by
            ``squeezedet export`` (.onnx, .xml, .param, .torchscript).
        engine: what runs it: onnxruntime, openvino, ncnn, torch, or ``auto`` for the fastest
            (``Detector.decision`` says why). By default onnxruntime, or the engine that the file
            was exported for.
        threads: processor threads; None for all cores.
        affinity: the cores to compute on, see ``engines.choose.open_engine``.

    Raises:
        UsageError: there is no such model, no such engine, or no such core.
        MissingExtraError: the engine is not installed.
        ModelError: the model is damaged or cannot be run.
    """
    path = bundle.find(model)
    return Detector(bundle.read(path), engine=engine, threads=threads, affinity=affinity)


class Detector:
    """Finds objects in images.

    >>> detector = squeezedet.load()              # doctest: +SKIP
    >>> for found in detector("street.jpg"):      # doctest: +SKIP
    ...     print(found.name, found.score, found.xyxy)

    Attributes:
        card: what is known of the model.
        names: class names.
        engine: what runs the model.
        decision: which engines ``auto`` tried, and why it took this one; None without ``auto``.
    """

    def __init__(
        self,
        model: Bundle,
        *,
        engine: str | None = None,
        threads: int | None = None,
        affinity: Sequence[int] | None = None,
    ) -> None:
        self.card = model.card
        self.names = model.card.classes
        self.engine, self.decision = select_engine(model, engine, threads, affinity)

    def __call__(
        self, image: str | Path | Image | NDArray[np.uint8], score: float | None = None
    ) -> Detections:
        """Detect in one image.

        Args:
            image: a path, a PIL image, or an (H, W, 3) uint8 RGB array.
            score: boxes below are not reported; the model's own threshold by default.

        Raises:
            DataError: the image cannot be used.
            UsageError: the score is not between 0 and 1.
            ModelError: the model fails, or gives what no detector gives.
        """
        return self.detect(_frame(image), score)

    def detect(self, frame: Frame, score: float | None = None) -> Detections:
        """Detect in one frame; ``timing_ms`` of the result says what each stage took."""
        selection = self._selection(score)
        start = time.perf_counter()
        pixels = fit(frame.pixels, self.card.input)
        prepared = time.perf_counter()
        raw = self.engine.run(pixels)
        ran = time.perf_counter()
        height, width = frame.pixels.shape[:2]
        content = self.card.input.content(width, height)
        found = report(raw, selection, content, (width, height))
        if not ((found.class_id >= 0) & (found.class_id < len(self.names))).all():
            raise ModelError(
                f"the model {self.card.name!r} gives a class id that none of its "
                f"{len(self.names)} classes has"
            )
        done = time.perf_counter()
        return Detections(
            found.xyxy,
            found.score,
            found.class_id,
            self.names,
            image=frame.name,
            width=width,
            height=height,
            timing_ms={
                "load": frame.load_ms,
                "preprocess": (prepared - start) * 1000,
                "network": (ran - prepared) * 1000,
                "postprocess": (done - ran) * 1000,
            },
        )

    def raw(self, frame: Frame) -> RawBoxes:
        """The boxes of every anchor in pixels of the frame, before top-N and NMS."""
        raw = self.engine.run(fit(frame.pixels, self.card.input))
        height, width = frame.pixels.shape[:2]
        content = self.card.input.content(width, height)
        return replace(raw, xyxy=to_original(raw.xyxy, content, (width, height)))

    def _selection(self, score: float | None) -> Selection:
        if score is None:
            return self.card.selection
        try:
            return replace(self.card.selection, score=float(score))
        except ValueError as error:
            raise UsageError(str(error)) from error


def _frame(image: str | Path | Image | NDArray[np.uint8]) -> Frame:
    import PIL.Image

    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise DataError(
                "an array must be (H, W, 3) uint8 RGB and not empty, "
                f"not {image.shape} {image.dtype}"
            )
        return Frame(np.ascontiguousarray(image))
    if isinstance(image, PIL.Image.Image):
        return frame_of(image)
    raise DataError(f"an image is a path, a PIL image or an array, not {type(image).__name__}")
