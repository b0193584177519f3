"""Export a detector to ONNX: uint8 RGB pixels in, decoded boxes out."""

from __future__ import annotations

import copy
import logging
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from squeezedet.detectors.network import DetectionNetwork
from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.runtime.engines.engine import INPUT, OUTPUTS
from squeezedet.runtime.engines.onnxruntime import OnnxRuntimeEngine

OPSET = 18
KERNEL_DIMS = 2  # kernels and matrices are stored as float16; biases stay float32
HALF_FROM = 256  # numbers; below, a Cast costs more than it saves
TOLERANCE_PX, TOLERANCE_SCORE = 0.05, 1e-3


class Exported(nn.Module):
    """(1, H, W, 3) uint8 to (1, A, 4) boxes, (1, A) scores, (1, A) class ids."""

    def __init__(self, detector: DetectionNetwork) -> None:
        super().__init__()
        self.detector = detector.fused()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.detector.decode(self.detector(images.permute(0, 3, 1, 2)))


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
    judged = copy.deepcopy(detector).eval()
    boxes, scores, _ = judged.decode(judged(images))
    answer = OnnxRuntimeEngine(graph).run(pixels)
    box_px = float(np.abs(answer.xyxy - boxes[0].numpy()).max())
    score = float(np.abs(answer.score - scores[0].numpy()).max())
    if box_px > TOLERANCE_PX or score > TOLERANCE_SCORE:
        raise ModelError(
            f"the exported graph differs from the detector by {box_px:.4f} px "
            f"and {score:.5f} in score"
        )
