"""Write OpenVINO's own files: model.xml and model.bin, with the card in ``rt_info``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from squeezedet.errors import ModelError
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines.engine import INPUT, first_line
from squeezedet.runtime.engines.openvino import import_openvino


def write_openvino(model: Bundle, path: Path) -> None:
    """Convert a model with openvino's reader of ONNX.

    Weights stay as they are in the graph: float16 kernels are not rounded again.

    Args:
        model: with an ONNX graph.
        path: of model.xml; model.bin is written beside it.

    Raises:
        MissingExtraError: openvino is not installed.
        ModelError: openvino cannot convert the model.
    """
    openvino = import_openvino()
    rule = model.card.input
    try:
        network = openvino.Core().read_model(model.graph)
        if rule.fixed:
            network.reshape({INPUT: [1, rule.height, rule.width, 3]})
        openvino.save_model(network, path, compress_to_fp16=False)
        # Only now the checksum is known, and it is in the card, and the card in the other file.
        digest = hashlib.sha256(path.with_suffix(".bin").read_bytes()).hexdigest()
        card = replace(model.card, graph_sha256=digest)
        line = json.dumps(json.loads(card.to_json()))  # an attribute in XML cannot hold lines
        network.set_rt_info(line, ["squeezedet", "card"])
        openvino.save_model(network, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise ModelError(f"openvino cannot convert the model: {first_line(error)}") from error
