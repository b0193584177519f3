"""What a peer is, and how it runs: published pixels in, ``Detections`` out.

The graphs are run by onnxruntime itself: the project's own engine takes graphs with the decoding
inside, which these lack. Images, resizing, suppression and judging are the project's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peers.coco import NAMES, ROAD_NAMES
from peers.placement import Placement
from squeezedet.boxes import area, clip, nms_per_class
from squeezedet.detections import Detections
from squeezedet.errors import ModelError, UsageError
from squeezedet.media.images import Frame

Floats = NDArray[np.float32]
FLOOR = 0.01
"""Score from which boxes are judged; published evaluations take 0.001 to 0.05."""
MOST = 100
"""Boxes an image, over all 80 classes, as in COCO's protocol."""


@dataclass(frozen=True, slots=True)
class PeerNetwork:
    """A published network.

    Attributes:
        name: as published.
        file: name of its ONNX file.
        prepare: (H, W, 3) uint8 RGB to (S, S, 3) float32 and where the image lies in it.
        decode: the graph's outputs to (A, 4) xyxy in pixels of the input and (A, 80) scores.
        nms_iou: of its published evaluation.
    """

    name: str
    file: str
    prepare: Callable[[NDArray[np.uint8]], tuple[Floats, Placement]]
    decode: Callable[[Sequence[Floats]], tuple[Floats, Floats]]
    nms_iou: float


def select(xyxy: Floats, scores: Floats, *, score: float, nms_iou: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """The boxes to report: every class of a cell above the threshold, NMS per class, best 100.

    Args:
        xyxy: (A, 4) boxes.
        scores: (A, C) scores of every class.
        score: threshold.
        nms_iou: IoU above which the lower box of a class is dropped.

    Returns:
        (K, 4) boxes, (K,) scores and (K,) class ids by descending score.
    """
    cell, class_id = np.nonzero(scores >= score)
    boxes, best = xyxy[cell], scores[cell, class_id]
    kept = nms_per_class(boxes, best, class_id, nms_iou)[:MOST]
    return boxes[kept], best[kept], class_id[kept]


class PeerDetector:
    """A peer, ready to detect.

    Args:
        network: which one.
        folder: where the ONNX files are.
        threads: processor threads; None for all cores.

    Attributes:
        network: which one.
        path: of its file.
        input_size: of its input in words.

    Raises:
        UsageError: the file is not there.
        ModelError: onnxruntime cannot run it.
    """

    def __init__(self, network: PeerNetwork, folder: Path, threads: int | None = None) -> None:
        # Before the import, as in the project's own engine: no reports to anyone.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        self.network = network
        self.path = folder / network.file
        if not self.path.is_file():
            raise UsageError(f"{self.path}: no such file; --peers is the folder of the peers' ONNX")
        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        # As our own engine does: threads that spin would be in the way of the next contender.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(f"{self.path}: onnxruntime cannot run it: {error}") from error
        self._input = self._session.get_inputs()[0].name
        _, _, height, width = self._session.get_inputs()[0].shape
        self.input_size = f"{width}x{height}"

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    def parameters(self) -> int:
        """How many floating-point numbers the graph holds as weights."""
        import onnx

        floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        weights = onnx.load(str(self.path)).graph.initializer
        return sum(int(np.prod(w.dims)) for w in weights if w.data_type in floats)

    def coco(self, frame: Frame, score: float = FLOOR) -> Detections:
        """Every COCO class in one frame; ``timing_ms`` says what each stage took."""
        start = time.perf_counter()
        square, placement = self.network.prepare(frame.pixels)
        tensor = np.ascontiguousarray(square.transpose(2, 0, 1)[None])
        prepared = time.perf_counter()
        outputs = self._session.run(None, {self._input: tensor})
        ran = time.perf_counter()
        boxes, scores = self.network.decode(outputs)
        boxes, best, class_id = select(boxes, scores, score=score, nms_iou=self.network.nms_iou)
        height, width = frame.pixels.shape[:2]
        boxes = clip(placement.to_image(boxes), width, height).astype(np.float32)
        inside = area(boxes) > 0
        done = time.perf_counter()
        return Detections(
            boxes[inside],
            best[inside],
            class_id[inside],
            NAMES,
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

    def detect(self, frame: Frame, score: float = FLOOR) -> Detections:
        """Cars and pedestrians in one frame, under KITTI's names."""
        return renamed(self.coco(frame, score), ROAD_NAMES)


def renamed(found: Detections, names: dict[str, str]) -> Detections:
    """Only the classes of ``names``, under their new names."""
    index = np.full(len(found.names), -1)
    for new, old in enumerate(names):
        index[found.names.index(old)] = new
    class_id = index[found.class_id]
    kept = class_id >= 0
    return Detections(
        found.xyxy[kept],
        found.score[kept],
        class_id[kept].astype(np.int64),
        tuple(names.values()),
        image=found.image,
        width=found.width,
        height=found.height,
        timing_ms=found.timing_ms,
    )
