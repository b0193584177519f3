"""A folder for the video recorder Frigate: a graph for its detectors, class names, lines for its configuration.

Both of its detectors that run ONNX files, ``openvino`` and ``onnx``, read the layout that Frigate calls ``yolonas``:
uint8 pixels (1, 3, H, W) in, one output (N, 7) of image, x1, y1, x2, y2 in pixels of the input, score, class. It reads
20 rows, by descending score, and stops at a class below 0. (``ssd`` is read by ``openvino`` only.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import UsageError
from squeezedet.exporting.graph import load_graph, serialized, with_nms
from squeezedet.files import write_atomic
from squeezedet.runtime.bundle import GRAPH, Bundle
from squeezedet.runtime.engines.engine import INPUT, OUTPUTS
from squeezedet.runtime.postprocess import RawBoxes

ROWS = 20
SIZE = (320, 320)
"""(width, height): Frigate cuts squares out of a frame, and 320 is its default."""
OUTPUT = "detections"
LABELS, CONFIG = "labelmap.txt", "frigate.yml"


def chosen_boxes(model: Bundle) -> Bundle:
    """The model with NMS in its graph, for as many boxes as Frigate reads."""
    return with_nms(replace(model, card=replace(model.card, selection=replace(model.card.selection, top_n=ROWS))))


def frigate_graph(chosen: Bundle) -> bytes:
    """The graph of ``chosen_boxes`` in the layout ``yolonas``."""
    from onnx import TensorProto, helper, numpy_helper

    model = load_graph(chosen.graph, "to=frigate")
    graph = model.graph
    rule = chosen.card.input

    def constant(name: str, value: NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"frigate.{name}"))
        return f"frigate.{name}"

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    for node in graph.node:
        node.input[:] = ["frigate.images" if name == INPUT else name for name in node.input]
    graph.node.insert(0, helper.make_node("Transpose", [INPUT], ["frigate.images"], perm=[0, 2, 3, 1]))

    boxes, scores, class_ids = OUTPUTS
    column = constant("column", np.array([-1, 1]))
    corners = add("Reshape", [boxes, constant("corners", np.array([-1, 4]))], "frigate.xyxy")
    score = add("Reshape", [scores, column], "frigate.score")
    kind = add("Reshape", [class_ids, column], "frigate.class_id")
    kind = add("Cast", [kind], "frigate.class", to=TensorProto.FLOAT)
    image = add("Mul", [score, constant("zero", np.array(0, np.float32))], "frigate.image")
    rows = add("Concat", [image, corners, score, kind], "frigate.rows", axis=1)
    nothing = constant("nothing", np.array([[0, 0, 0, 0, 0, 0, -1]] * ROWS, np.float32))
    rows = add("Concat", [rows, nothing], "frigate.more", axis=0)
    first = add("Slice", [rows, constant("begin", np.array([0])), constant("end", np.array([ROWS]))], "frigate.first")
    add("Reshape", [first, constant("shape", np.array([ROWS, 7]))], OUTPUT)  # tells OpenVINO that the shape is fixed

    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, 3, rule.height, rule.width]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [ROWS, 7]))
    return serialized(model)


class FrigateEngine:
    """Runs such a graph as Frigate's ``onnx`` detector does."""

    name = "onnxruntime, as Frigate runs it"

    def __init__(self, graph: bytes) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """(H, W, 3) pixels to the boxes that the graph chose."""
        (rows,) = self._session.run(None, {INPUT: pixels.transpose(2, 0, 1)[None]})
        found = rows[rows[:, 6] >= 0]
        return RawBoxes(found[:, 1:5], found[:, 5], found[:, 6].astype(np.int64))


def write_folder(chosen: Bundle, graph: bytes, folder: Path) -> list[Path]:
    """Write model.onnx, labelmap.txt and frigate.yml; what else is in the folder stays.

    Raises:
        UsageError: ``folder`` is a file.
        SqueezeDetError: a file cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; Frigate's files need a folder")
    labels = "\n".join(chosen.card.classes) + "\n"
    contents: dict[str, bytes | str] = {GRAPH: graph, LABELS: labels, CONFIG: _config(chosen, folder.resolve().name)}
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def _config(chosen: Bundle, folder: str) -> str:
    """What goes into Frigate's configuration; the files then lie in /config/FOLDER of its container."""
    import yaml

    card = chosen.card
    score = card.selection.score
    detector = {"detectors": {"squeezedet": {"type": "openvino", "device": "CPU"}}}
    rest = {
        "model": {
            "path": f"/config/{folder}/{GRAPH}",
            "labelmap_path": f"/config/{folder}/{LABELS}",
            "model_type": "yolonas",
            "width": card.input.width,
            "height": card.input.height,
            "input_tensor": "nchw",
            "input_pixel_format": "rgb",
            "input_dtype": "int",
        },
        "objects": {
            "track": list(card.classes),
            "filters": {name: {"min_score": score, "threshold": score} for name in card.classes},
        },
    }
    name, licence = (" ".join(text.split()) for text in (card.name, card.licence))
    return (
        f"# The model {name} of squeezedet, for Frigate. License of the weights: {licence}\n"
        + "# Or `type: onnx` without a device.\n"
        + yaml.safe_dump(detector, sort_keys=False)
        + yaml.safe_dump(rest, sort_keys=False)
    )
