"""Changes to an exported graph: one size of input, and NMS inside. No torch is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import MissingExtraError, ModelError, UsageError
from squeezedet.preprocess import STRIDE, InputRule
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines import CPU, INPUT, OUTPUTS, first_line, import_onnxruntime
from squeezedet.runtime.postprocess import Selection

EXPORT = "export"
"""Where a card says, under ``training``, what was done to a graph after training."""


def fix_size(model: Bundle, size: tuple[int, int]) -> Bundle:
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
        raise UsageError(f"`fixed`: the model takes only {own.width}x{own.height}")
    try:
        rule = InputRule(*size, fixed=True)
        if any(side % STRIDE for side in size):
            raise ValueError(f"a side must be a multiple of {STRIDE}")
    except ValueError as error:
        raise UsageError(f"`fixed`: {error}") from error
    graph = load_graph(model.graph, "fixed")
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
    graph = load_graph(model.graph, "nms")
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
        raise MissingExtraError(f"export with `{need}`", "int8") from error
    return onnx.load_from_string(graph)


def serialized(model: Any) -> bytes:
    """The file of an ONNX model, which is checked."""
    import onnx

    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def open_session(graph: bytes) -> Any:
    """Any graph in onnxruntime, on the processor; a ModelError where it cannot be run."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, once
    try:
        return onnxruntime.InferenceSession(graph, options, providers=[CPU])
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelError(f"onnxruntime cannot run the graph: {first_line(error)}") from error
