"""PyTorch on the processor: runs an exported TorchScript file."""

from __future__ import annotations

import io
import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.runtime.engines.engine import failed_run, first_line, raw_boxes
from squeezedet.runtime.postprocess import RawBoxes

_first_process = 0
"""The process in which torch's threads were started."""


class TorchEngine:
    """Runs a TorchScript file: uint8 pixels in, the boxes of every anchor out.

    Args:
        script: the bytes of the file.
        threads: processor threads, for the whole process; None for torch's own choice.

    Raises:
        MissingExtraError: torch is not installed.
        ModelError: torch cannot load the file.
    """

    name = "torch"

    def __init__(self, script: bytes, threads: int | None = None) -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("the engine torch", "torch") from error
        self._torch: Any = torch  # parts of it have no types
        self._survive_fork()
        if threads and os.getpid() == _first_process:
            torch.set_num_threads(threads)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is old, and says so
                script_file = io.BytesIO(script)
                self._module = self._torch.jit.load(script_file, map_location="cpu").eval()
        except Exception as error:  # the bytes come from anywhere; torch raises what it likes
            raise ModelError(f"torch {torch.__version__} cannot load the model: {first_line(error)}") from error

    def _survive_fork(self) -> None:
        """In a child of the process that ran torch first, its threads are gone: use none."""
        global _first_process  # noqa: PLW0603 - torch's threads are the process's, too
        _first_process = _first_process or os.getpid()
        if os.getpid() != _first_process:
            self._torch.set_num_threads(1)

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """Pixels to the boxes of every anchor; see ``Engine``."""
        self._survive_fork()
        if not pixels.flags.writeable:
            pixels = pixels.copy()  # torch knows no read-only memory
        try:
            with self._torch.inference_mode():
                outputs = self._module(self._torch.from_numpy(pixels[None]))
                boxes, score, class_id = (output.numpy() for output in outputs)
        except Exception as error:  # as above
            raise failed_run(pixels, error) from error
        return raw_boxes(boxes, score, class_id)
