"""Export a detector to ONNX: uint8 RGB pixels in, decoded boxes out."""

from __future__ import annotations

import copy
import hashlib
import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from squeezedet.errors import MissingExtraError, ModelError, UsageError
from squeezedet.models.network import DetectionNetwork
from squeezedet.preprocess import STRIDE, InputRule
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines.engine import INPUT, OUTPUTS
from squeezedet.runtime.engines.onnxruntime import OnnxRuntimeEngine
from squeezedet.runtime.postprocess import Selection

# ---- onnx: Export a detector to ONNX: uint8 RGB pixels in, decoded boxes out.

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


def export(detector: DetectionNetwork, size: tuple[int, int], *, half: bool = True) -> bytes:
    """Export, then compare with the detector on noise.

    Args:
        detector: the network with its weights; not changed.
        size: (width, height) to compare at; the graph takes any multiples of 16, or only this
            size where the detector's input rule is fixed.
        half: store the weights as float16; the engine computes in float32.

    Returns:
        The graph as ONNX bytes.

    Raises:
        ModelError: the graph does not answer as the detector does.
    """
    detector = round_to_half(detector) if half else detector
    module = Exported(detector)
    example = torch.zeros(1, size[1], size[0], 3, dtype=torch.uint8)
    graph = _export(module, example, dynamic=not detector.input_rule.fixed)
    if half:
        graph = _store_half(graph)
    _check(graph, detector, size)
    return graph


def _export(module: Exported, example: Tensor, dynamic: bool) -> bytes:
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("export", "train") from error
    shapes = None
    if dynamic:
        rows, columns = torch.export.Dim("rows", min=2), torch.export.Dim("columns", min=2)
        shapes = ({1: 16 * rows, 2: 16 * columns},)
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
                output_names=list(OUTPUTS),
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
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    boxes, scores, _ = Exported(detector)(images.permute(0, 2, 3, 1))
    answer = OnnxRuntimeEngine(graph).run(pixels)
    box_px = float(np.abs(answer.xyxy - boxes[0].numpy()).max())
    score = float(np.abs(answer.score - scores[0].numpy()).max())
    if box_px > TOLERANCE_PX or score > TOLERANCE_SCORE:
        raise ModelError(f"the exported graph differs from the detector by {box_px:.4f} px and {score:.5f} in score")


# ---- graph: Changes to an exported graph: one size of input, and NMS inside; with onnx, without

EXPORT = "export"
"""Where a card says, under ``training``, what was done to a graph after training."""


def fixed(model: Bundle, size: tuple[int, int]) -> Bundle:
    """The same model for one size of input; every image is stretched to it.

    Its accuracy was measured otherwise, so the card's results go.

    Args:
        model: with an ONNX graph.
        size: (width, height) in pixels, multiples of 16.

    Raises:
        UsageError: the model cannot have this size.
        MissingExtraError: onnx is not installed.
    """
    own = model.card.input
    if own.fixed and size == (own.width, own.height):
        return model
    if own.fixed:
        raise UsageError(f"--fixed: the model takes only {own.width}x{own.height}")
    try:
        rule = InputRule(*size, fixed=True)
        if any(side % STRIDE for side in size):
            raise ValueError(f"a side must be a multiple of {STRIDE}")
    except ValueError as error:
        raise UsageError(f"--fixed: {error}") from error
    graph = load_graph(model.graph, "--fixed")
    for port in graph.graph.input:
        if port.name == INPUT:
            for i, side in ((1, size[1]), (2, size[0])):
                port.type.tensor_type.shape.dim[i].dim_value = side
    card = replace(model.card, input=rule, results={})
    return transform_graph(replace(model, card=card), serialized(graph), fixed=True)


def has_nms(model: Bundle) -> bool:
    """Whether the graph chooses the boxes itself."""
    done = model.card.training.get(EXPORT)
    return isinstance(done, Mapping) and bool(done.get("nms"))


def transform_graph(model: Bundle, graph: bytes, **what: Any) -> Bundle:
    """A model with another graph, and a card that says so under ``training``, ``export``."""
    done = model.card.training.get(EXPORT) or {}
    card = replace(
        model.card,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
        training={**model.card.training, EXPORT: {**done, **what}},
    )
    return replace(model, card=card, graph=graph)


def with_nms(model: Bundle) -> Bundle:
    """The same model with threshold, NMS and top-N in its graph, as its card's selection says.

    In the graph NMS has one IoU, the lowest of all classes, and boxes do not vote; where that is
    another choice, the card's selection says so and its results go.

    The outputs keep their names: (1, K, 4) boxes, (1, K) scores, (1, K) class ids of the K boxes
    to report, by descending score, in pixels of the input.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    if has_nms(model):
        return model
    graph = load_graph(model.graph, "--nms")
    card = model.card
    plain = replace(card.selection, nms_iou=float(np.min(card.selection.nms_iou)), vote_iou=1.0, part_of=())
    if plain != card.selection:
        model = replace(model, card=replace(card, selection=plain, results={}))
    _append_nms(graph.graph, plain, len(card.classes))
    return transform_graph(model, serialized(graph), nms=True)


def _append_nms(graph: Any, selection: Selection, classes: int) -> None:
    from onnx import TensorProto, helper, numpy_helper

    every = {name: f"every_{name}" for name in OUTPUTS}
    for node in graph.node:
        node.input[:] = [every.get(name, name) for name in node.input]
        node.output[:] = [every.get(name, name) for name in node.output]

    def constant(name: str, value: NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"nms.{name}"))
        return f"nms.{name}"

    def add(kind: str, inputs: tuple[str, ...], *outputs: str, **attributes: Any) -> None:
        graph.node.append(helper.make_node(kind, list(inputs), list(outputs), **attributes))

    first, flat = constant("axis", np.array([0])), constant("flat", np.array([-1]))
    four = constant("boxes_shape", np.array([-1, 4]))
    candidates = constant("candidates", np.array([selection.candidates]))
    top_n = constant("top_n", np.array([selection.top_n]))
    ids = constant("ids", np.arange(classes)[:, None])
    nothing = constant("nothing", np.array(-1, np.float32))
    overlap = constant("iou", np.array([selection.nms_iou], np.float32))
    # The operator keeps scores above its threshold; ours may be equal to it.
    least = np.nextafter(np.float32(selection.score), np.float32(-1))
    threshold = constant("threshold", np.array([least], np.float32))

    # The best boxes over all classes enter NMS.
    add("Reshape", (every["boxes"], four), "nms.boxes")
    add("Reshape", (every["scores"], flat), "nms.scores")
    add("Reshape", (every["class_ids"], flat), "nms.class_ids")
    add("Shape", ("nms.scores",), "nms.anchors")
    add("Min", ("nms.anchors", candidates), "nms.k")
    add("TopK", ("nms.scores", "nms.k"), "nms.top", "nms.top_index")
    add("Gather", ("nms.boxes", "nms.top_index"), "nms.top_boxes")
    add("Gather", ("nms.class_ids", "nms.top_index"), "nms.top_ids")
    # The operator wants (1, C, K) scores: each box has one in its own class only.
    add("Equal", ("nms.top_ids", ids), "nms.own")
    add("Where", ("nms.own", "nms.top", nothing), "nms.by_class")
    add("Unsqueeze", ("nms.by_class", first), "nms.by_class_1")
    add("Unsqueeze", ("nms.top_boxes", first), "nms.top_boxes_1")
    add(
        "NonMaxSuppression",
        ("nms.top_boxes_1", "nms.by_class_1", candidates, overlap, threshold),
        "nms.selected",  # (K, 3): image, class, box
    )
    add("Gather", ("nms.selected", constant("box", np.array(2))), "nms.kept", axis=1)
    # It goes class by class: order by score again, and report the best.
    add("Gather", ("nms.top", "nms.kept"), "nms.kept_scores")
    add("Shape", ("nms.kept_scores",), "nms.kept_count")
    add("Min", ("nms.kept_count", top_n), "nms.n")
    add("TopK", ("nms.kept_scores", "nms.n"), "nms.best", "nms.best_index")
    add("Gather", ("nms.kept", "nms.best_index"), "nms.index")
    add("Gather", ("nms.top_boxes", "nms.index"), "nms.best_boxes")
    add("Gather", ("nms.top_ids", "nms.index"), "nms.best_ids")
    for name, best in zip(OUTPUTS, ("nms.best_boxes", "nms.best", "nms.best_ids"), strict=True):
        add("Unsqueeze", (best, first), name)
    del graph.output[:]
    del graph.value_info[:]
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64)
    for name, kind, rest in zip(OUTPUTS, kinds, ([4], [], []), strict=True):
        graph.output.append(helper.make_tensor_value_info(name, kind, [1, "K", *rest]))


def load_graph(graph: bytes, need: str) -> Any:
    """The ONNX model; ``need`` says what for, if onnx is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError(f"export {need}", "int8") from error
    return onnx.load_from_string(graph)


def serialized(model: Any) -> bytes:
    """The file of an ONNX model, which is checked."""
    import onnx

    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
