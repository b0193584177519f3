"""OpenVINO on the processor: reads our ONNX graph itself, or an exported model.xml.

A network of one fixed size is faster than one of any size, so each size of input is compiled
when it is first seen, and the last few are kept.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.runtime.engines import INPUT, OUTPUTS, check_ports, failed_run, first_line, raw_boxes
from squeezedet.runtime.postprocess import RawBoxes

PORT_TYPES = ("u8", "f32", "f32", "i64")
MAX_SIZES = 4
"""Compiled networks that are kept; the input rule gives pictures of one camera one size."""


def import_openvino() -> Any:
    """The package, with its telemetry off.

    Importing openvino sends an event, unless the package that sends it cannot be imported.

    Raises:
        MissingExtraError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("the engine openvino", "openvino") from error
    return openvino


class OpenVinoEngine:
    """Runs an exported graph, compiled for each size of input.

    Args:
        graph: ONNX bytes, or the text of model.xml.
        weights: the bytes of model.bin, for model.xml.
        threads: processor threads; None for all cores.

    Raises:
        MissingExtraError: openvino is not installed.
        ModelError: openvino cannot read the graph, or it is no detector of ours.
    """

    name = "openvino"

    def __init__(self, graph: bytes, weights: bytes = b"", threads: int | None = None) -> None:
        openvino = import_openvino()
        self._core = openvino.Core()
        try:
            read = self._core.read_model
            self._model = read(graph, weights) if weights else read(graph)
        except Exception as error:  # openvino raises RuntimeError for everything, and not only that
            version = openvino.__version__.split("-")[0]
            raise ModelError(f"openvino {version} cannot read the model: {first_line(error)}") from error
        inputs = {port.any_name: port.element_type.get_type_name() for port in self._model.inputs}
        outputs = {port.any_name: port.element_type.get_type_name() for port in self._model.outputs}
        check_ports(inputs, outputs, PORT_TYPES)
        self._config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # or processors with bfloat16 would round
        }
        if threads:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._lock = threading.Lock()  # a request answers one caller at a time

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """Pixels to the boxes of every anchor; see ``Engine``."""
        with self._lock:
            try:
                request = self._request(pixels.shape)
                found = request.infer({INPUT: pixels[None]}, share_inputs=True)
                boxes, score, class_id = (found[name] for name in OUTPUTS)
            except Exception as error:  # as above
                raise failed_run(pixels, error) from error
        return raw_boxes(boxes, score, class_id)

    def _request(self, shape: tuple[int, ...]) -> Any:
        """The request of a size, compiled if it is new; the size least used of late goes."""
        if shape not in self._requests:
            model = self._model.clone()
            model.reshape({INPUT: [1, *shape]})
            compiled = self._core.compile_model(model, "CPU", self._config)
            self._requests[shape] = compiled.create_infer_request()
            if len(self._requests) > MAX_SIZES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shape)
        return self._requests[shape]
