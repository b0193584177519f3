"""The default engine: onnxruntime on the processor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError, UsageError
from squeezedet.runtime.postprocess import RawBoxes

INPUT = "images"
OUTPUTS = ("boxes", "scores", "class_ids")


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
        import onnxruntime

        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised below, once
        if threads:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"onnxruntime {onnxruntime.__version__} cannot run the model: {reason}"
            ) from error
        inputs = {i.name: i.type for i in self._session.get_inputs()}
        outputs = [o.name for o in self._session.get_outputs()]
        if inputs != {INPUT: "tensor(uint8)"} or outputs != list(OUTPUTS):
            raise ModelError(
                f"the graph takes {inputs} and gives {outputs}; a detector takes uint8 {INPUT!r} "
                f"and gives {', '.join(OUTPUTS)}"
            )

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """Pixels to the boxes of every anchor, in pixels of the input.

        Args:
            pixels: (H, W, 3) uint8 RGB, sides multiples of 16 (or the fixed size of the model).
        """
        boxes, score, class_id = self._session.run(OUTPUTS, {INPUT: pixels[None]})
        return RawBoxes(boxes[0], score[0], class_id[0])
