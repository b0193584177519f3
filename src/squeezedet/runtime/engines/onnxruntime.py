"""The default engine: onnxruntime, on the processor or by another of its execution providers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError, UsageError
from squeezedet.runtime.engines import INPUT, OUTPUTS, check_ports, failed_run, first_line, raw_boxes
from squeezedet.runtime.postprocess import RawBoxes

PORT_TYPES = ("tensor(uint8)", "tensor(float)", "tensor(float)", "tensor(int64)")
CPU = "CPUExecutionProvider"
PROVIDERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "cpu": (CPU, "onnxruntime"),
        "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
        "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
        "coreml": ("CoreMLExecutionProvider", "onnxruntime"),
        "dml": ("DmlExecutionProvider", "onnxruntime-directml"),
    }
)
"""Name after ``onnxruntime:`` -> the provider, and the package of onnxruntime that has it."""


def import_onnxruntime() -> Any:
    """The package, with its telemetry off; every module that needs it gets it here.

    Since 1.29 its wheels report to their maker unless told not to before the import.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class OnnxRuntimeEngine:
    """Runs an exported graph: uint8 pixels in, the boxes of every anchor out.

    Args:
        graph: ONNX bytes, checked before, see ``graph_check``.
        threads: processor threads; None leaves the choice to onnxruntime (all cores).
        provider: a key of ``PROVIDERS``.

    Raises:
        UsageError: there is no such provider, or this onnxruntime has it not.
        ModelError: onnxruntime cannot run the graph, or it is no detector of ours.
    """

    def __init__(self, graph: bytes, threads: int | None = None, provider: str = "cpu") -> None:
        self.name = "onnxruntime" if provider == "cpu" else f"onnxruntime:{provider}"
        onnxruntime = import_onnxruntime()
        wanted = _provider(onnxruntime, provider)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised below, once
        # A thread that waits sleeps: the core is decoding's and drawing's meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=list(dict.fromkeys((wanted, CPU))))
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(
                f"onnxruntime {onnxruntime.__version__} cannot run the model: {first_line(error)}"
            ) from error
        if wanted not in self._session.get_providers():  # it falls back without a word
            raise ModelError(
                f"{self.name}: {wanted} could not be started on this machine; its driver or its libraries are missing"
            )
        inputs = {i.name: i.type for i in self._session.get_inputs()}
        outputs = {o.name: o.type for o in self._session.get_outputs()}
        check_ports(inputs, outputs, PORT_TYPES)

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """Pixels to the boxes of every anchor; see ``Engine``."""
        try:
            boxes, score, class_id = self._session.run(OUTPUTS, {INPUT: pixels[None]})
        except Exception as error:  # as above
            raise failed_run(pixels, error) from error
        return raw_boxes(boxes, score, class_id)


def _provider(onnxruntime: Any, name: str) -> str:
    if name not in PROVIDERS:
        raise UsageError(f"`engine`: onnxruntime has no {name!r} (known: {', '.join(PROVIDERS)})")
    wanted, package = PROVIDERS[name]
    there = onnxruntime.get_available_providers()
    if wanted not in there:
        raise UsageError(
            f"`engine`: onnxruntime:{name}: the installed onnxruntime has no {wanted} (it has "
            f"{', '.join(there)}); pip install {package} in its place"
        )
    return wanted
