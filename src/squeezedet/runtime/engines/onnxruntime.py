"""The default engine: onnxruntime on the processor."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.runtime.engines.engine import INPUT, OUTPUTS, first_line, raw_boxes
from squeezedet.runtime.postprocess import RawBoxes

ONNX_TYPES = ("tensor(float)", "tensor(float)", "tensor(int64)")


class OnnxRuntimeEngine:
    """Runs an exported graph: uint8 pixels in, the boxes of every anchor out.

    Args:
        graph: ONNX bytes.
        threads: processor threads; None leaves the choice to onnxruntime (all cores).

    Raises:
        ModelError: onnxruntime cannot run the graph, or it is no detector of ours.
    """

    name = "onnxruntime"

    def __init__(self, graph: bytes, threads: int | None = None) -> None:
        # Since 1.29 onnxruntime's wheels report to their maker unless told not to before import.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised below, once
        # A thread that waits sleeps: the core is decoding's and drawing's meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(
                f"onnxruntime {onnxruntime.__version__} cannot run the model: {first_line(error)}"
            ) from error
        inputs = {i.name: i.type for i in self._session.get_inputs()}
        outputs = {o.name: o.type for o in self._session.get_outputs()}
        wanted = dict(zip(OUTPUTS, ONNX_TYPES, strict=True))
        if inputs != {INPUT: "tensor(uint8)"} or outputs != wanted:
            raise ModelError(
                f"the graph takes {inputs} and gives {outputs}; a detector takes uint8 {INPUT!r} "
                f"and gives {wanted}"
            )

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """Pixels to the boxes of every anchor; see ``Engine``."""
        try:
            boxes, score, class_id = self._session.run(OUTPUTS, {INPUT: pixels[None]})
        except Exception as error:  # as above
            height, width = pixels.shape[:2]
            raise ModelError(
                f"the model fails on an input of {width}x{height} pixels: {first_line(error)}"
            ) from error
        return raw_boxes(boxes, score, class_id)
