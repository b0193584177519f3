"""From a network to a bundle: a graph, uint8 RGB pixels in and boxes out, and a card with all that is known of it."""

from __future__ import annotations

import copy
import hashlib
import logging
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from squeezedet.data.sample import Sample
from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.models.network import DetectionNetwork
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.card import Card
from squeezedet.runtime.engines import INPUT, OUTPUTS, ConvDetDecoder, OnnxRuntimeEngine
from squeezedet.training.checkpoint import read_detector
from squeezedet.training.validate import best_thresholds, detect_all, score_odds

# ------------------------------------------------------------ the graph

OPSET = 18
KERNEL_DIMS = 2  # kernels and matrices are stored as float16; biases stay float32
HALF_FROM = 256  # numbers; below, a Cast costs more than it saves
TOLERANCE_PX, TOLERANCE_SCORE = 0.05, 1e-3


class Exported(nn.Module):
    """(1, H, W, 3) uint8 to (1, A, 4) boxes, (1, A) scores, (1, A) class ids."""

    def __init__(self, detector: DetectionNetwork) -> None:
        super().__init__()
        self.detector = detector.fused()
        self.score_odds: Tensor
        self.register_buffer("score_odds", torch.tensor(detector.score_odds))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        boxes, score, class_id = self.detector.decode(self.detector(images.permute(0, 3, 1, 2)))
        if self.detector.score_odds:
            score = score / (score + (1 - score) * self.score_odds[class_id])
        return boxes, score, class_id


def round_to_half(detector: DetectionNetwork) -> DetectionNetwork:
    """A copy whose kernels hold only numbers that float16 can hold."""
    rounded = copy.deepcopy(detector)
    with torch.no_grad():
        for tensor in rounded.state_dict().values():
            if tensor.ndim >= KERNEL_DIMS:
                tensor.copy_(tensor.half().float())
    return rounded


def export(detector: DetectionNetwork, size: tuple[int, int]) -> bytes:
    """Export, then compare with the detector on noise; kernels are stored as float16, and computed with as float32.

    Args:
        detector: the network with its weights; not changed.
        size: (width, height) to compare at; the graph takes any multiples of 16, or only this
            size where the detector's input rule is fixed.

    Returns:
        The graph as ONNX bytes.

    Raises:
        ModelError: the graph does not answer as the detector does.
    """
    detector = round_to_half(detector)
    module = Exported(detector)
    example = torch.zeros(1, size[1], size[0], 3, dtype=torch.uint8)
    shapes = None
    if not detector.input_rule.fixed:
        rows, columns = torch.export.Dim("rows", min=2), torch.export.Dim("columns", min=2)
        shapes = ({1: 16 * rows, 2: 16 * columns},)
    graph = _store_half(to_onnx(module, example, OUTPUTS, shapes))
    _check(graph, detector, size)
    return graph


def to_onnx(module: nn.Module, example: Tensor, outputs: Sequence[str], shapes: Any = None) -> bytes:
    """A module with one input, ``images``, as ONNX; ``shapes`` are torch's dynamic shapes.

    Raises:
        MissingExtraError: onnxscript is not installed.
        ModelError: the exporter gives no graph.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("export", "train") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_shapes=shapes,
                verbose=False,
            )
        finally:
            logging.disable(before)
    if program is None:
        raise ModelError("the exporter gave no graph")
    model = program.model_proto
    for node in model.graph.node:  # names and call stacks of this machine stay here
        del node.metadata_props[:]
        node.doc_string = ""
    return bytes(model.SerializeToString())


def _store_half(graph: bytes) -> bytes:
    """Store what float16 holds exactly as float16, with a Cast behind each."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(graph)
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.ndim < KERNEL_DIMS:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < HALF_FROM or not np.array_equal(half, values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = casts + list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@torch.inference_mode()
def _check(graph: bytes, detector: DetectionNetwork, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    boxes, scores, _ = Exported(detector)(torch.from_numpy(pixels)[None])
    answer = OnnxRuntimeEngine(graph).run(pixels)
    box_px = float(np.abs(answer.xyxy - boxes[0].numpy()).max())
    score = float(np.abs(answer.score - scores[0].numpy()).max())
    if box_px > TOLERANCE_PX or score > TOLERANCE_SCORE:
        raise ModelError(f"the exported graph differs from the detector by {box_px:.4f} px and {score:.5f} in score")


# ------------------------------------------------------------ the bundle

UNKNOWN = "not stated"
TRAINING = {"steps": "step", "config": "config", "recipe": "recipe", "versions": "versions"}
"""What a card says of the training -> where a checkpoint has it."""


def bundle_checkpoint(
    path: Path,
    name: str,
    *,
    licence: str = UNKNOWN,
    data: str = UNKNOWN,
    results: dict[str, Any] | None = None,
    calibrate_on: Sequence[Sample] = (),
) -> Bundle:
    """Export the weights of a checkpoint with their card.

    Args:
        path: of the checkpoint.
        name: of the model.
        licence: of the weights, with the reason.
        data: what they were trained on, with licences.
        results: measured accuracy; by default what the checkpoint's validation found.
        calibrate_on: labelled images on which the score threshold of the best F1 is found and made 0.4 where the
            network has confidences, see ``squeezedet.training.validate``; none leaves scores and threshold alone.

    Raises:
        ModelError: the checkpoint is damaged, or the exported graph differs from the detector.
    """
    detector, checkpoint = read_detector(path)
    metadata = checkpoint.metadata
    try:
        training = {field: metadata[key] for field, key in TRAINING.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: says too little of itself to make a bundle: {error}") from error
    return bundle_detector(
        detector,
        name,
        licence=licence,
        data=data,
        training=training,
        results=results or metadata.get("validation") or {},
        calibrate_on=calibrate_on,
    )


def bundle_detector(
    detector: DetectionNetwork,
    name: str,
    *,
    licence: str = UNKNOWN,
    data: str = UNKNOWN,
    training: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    calibrate_on: Sequence[Sample] = (),
) -> Bundle:
    """Export a detector with its card; arguments and errors as ``bundle_checkpoint``.

    ``training`` says how it was trained; calibration sets the detector's ``score_odds``.
    """
    training = dict(training or {})
    if calibrate_on:
        found = detect_all(detector, calibrate_on)
        detector.score_odds = score_odds(best_thresholds(calibrate_on, found, detector.config.classes))
        training["score_odds"] = list(detector.score_odds)
    rule = detector.input_rule
    graph = export(detector, (rule.width, rule.height))
    card = Card(
        name=name,
        detector=detector.kind,
        classes=detector.config.classes,
        input=rule,
        selection=detector.selection,
        parameters=sum(p.numel() for p in detector.parameters()),
        licence=licence,
        data=data,
        training=training,
        results=results or {},
        opset=OPSET,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
    )
    return Bundle(card, graph)


# ------------------------------------------------------------ ncnn

CONVERTER_S = 600
"""At most; SqueezeDet takes about a second."""
TRACE_SIZE = (160, 96)
"""(width, height) of the input at which a network of any size is traced."""


def write_ncnn(detector: DetectionNetwork, card: Card, path: Path) -> None:
    """Convert a detector up to ConvDet's map: (1, 3, H, W) float RGB of 0 to 255 in.

    Args:
        detector: a ConvDet of the default geometry, with its weights.
        card: what is known of it; goes into the file .json.
        path: of model.ncnn.param; .bin and .json are written beside it.

    Raises:
        MissingExtraError: pnnx is not installed.
        ModelError: the network cannot be converted.
    """
    ConvDetDecoder.of(card)  # raises for what could not be decoded afterwards
    rule = card.input
    size = (rule.width, rule.height) if rule.fixed else TRACE_SIZE
    with tempfile.TemporaryDirectory(prefix="squeezedet-") as folder:
        _pnnx(detector, size, Path(folder))
        param, weights = ((Path(folder) / f"model.ncnn.{suffix}").read_bytes() for suffix in ("param", "bin"))
    path.write_bytes(param)
    path.with_suffix(".bin").write_bytes(weights)
    card = replace(card, graph_sha256=hashlib.sha256(param + weights).hexdigest())
    path.with_suffix(".json").write_text(card.to_json(), encoding="utf-8")


def _pnnx(detector: DetectionNetwork, size: tuple[int, int], folder: Path) -> None:
    """Write model.ncnn.param and model.ncnn.bin into a folder; kernels become float16."""
    try:
        import pnnx
    except ImportError as error:
        raise MissingExtraError("export with `to=ncnn`", "ncnn") from error
    width, height = size
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer's age, and of checks on sizes
        script = torch.jit.trace(  # type: ignore[no-untyped-call]
            detector.fused().eval(), torch.zeros(1, 3, height, width), check_trace=False
        )
    script.save(str(folder / "model.pt"))
    command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[1,3,{height},{width}]f32", "fp16=1"]
    try:
        done = subprocess.run(  # noqa: S603 - the converter that came with the package
            command, cwd=folder, capture_output=True, timeout=CONVERTER_S, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"pnnx cannot convert the model: {error}") from error
    if done.returncode or not all((folder / f"model.ncnn.{suffix}").is_file() for suffix in ("param", "bin")):
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ModelError(f"pnnx cannot convert the model: {said[-1] if said else 'it says nothing'}")
