"""The weights that a run starts from: SqueezeNet v1.1 trained on ImageNet, or random ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from squeezedet.detectors.squeezedet import SqueezeDet, SqueezeDetConfig
from squeezedet.errors import MissingExtraError, ModelError

MAX_BYTES = 64_000_000
PIXEL_SPREAD = 64.0  # standard deviation of a pixel, roughly: conv1 sees pixels, not unit noise
BACKBONE = ("conv1", *(f"fire{i}" for i in range(2, 10)))


def new_detector(config: SqueezeDetConfig, squeezenet: Path | None, seed: int) -> SqueezeDet:
    """A detector with its starting weights.

    Args:
        config: what to build.
        squeezenet: ONNX file of SqueezeNet v1.1 for the backbone; None for random weights
            by He's rule (arXiv 1502.01852), since those of the paper's code, made to be
            replaced, are too small to learn from.
        seed: of the random weights.

    Raises:
        ModelError: the file cannot be used.
    """
    torch.manual_seed(seed)
    detector = SqueezeDet(config)
    if squeezenet:
        load_squeezenet(detector, squeezenet)
    else:
        for name in (*BACKBONE, "fire10", "fire11"):
            for part, parameter in detector.get_submodule(name).named_parameters():
                if part.endswith("weight"):
                    torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        with torch.no_grad():
            detector.get_parameter("conv1.weight").div_(PIXEL_SPREAD)
    return detector


def load_squeezenet(detector: SqueezeDet, path: Path) -> tuple[str, ...]:
    """Copy the weights of SqueezeNet v1.1 from an ONNX file into the backbone.

    The convolutions are taken in the order of the graph: conv1, then squeeze1x1,
    expand1x1, expand3x3 of fire2 to fire9; shapes must fit. The published file wants
    BGR pixels minus the mean, in the paper's order of preprocessing; the detector takes
    RGB, so the input channels of conv1 are turned around.

    Args:
        detector: changed in place.
        path: of the ONNX file, float16 or float32.

    Returns:
        The names of the layers that keep their random weights.

    Raises:
        ModelError: the file is missing, too large, damaged, or no SqueezeNet v1.1.
    """
    convolutions = _convolutions(path)
    with torch.no_grad():
        for name in _backbone_layers():
            wanted = detector.get_parameter(f"{name}.weight")
            weight, bias = next(convolutions, (None, None))
            fits = weight is not None and weight.shape == wanted.shape
            if weight is None or bias is None or not fits or bias.shape != wanted.shape[:1]:
                found = None if weight is None else weight.shape
                raise ModelError(
                    f"{path}: not a SqueezeNet v1.1: {name} wants weights of shape "
                    f"{tuple(wanted.shape)}, found {found}"
                )
            if name == "conv1":
                weight = weight[:, ::-1].copy()
            wanted.copy_(torch.from_numpy(weight))
            detector.get_parameter(f"{name}.bias").copy_(torch.from_numpy(bias))
    new = (name for name, child in detector.named_children() if list(child.parameters()))
    return tuple(name for name in new if name not in BACKBONE)


def _backbone_layers() -> list[str]:
    parts = ("squeeze1x1", "expand1x1", "expand3x3")
    return ["conv1"] + [f"{fire}.{part}" for fire in BACKBONE[1:] for part in parts]


def _convolutions(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weights (O, I, H, W) and biases (O,) of each convolution of a graph, as float32."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError("reading an ONNX file", "train") from error
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: {path.stat().st_size} bytes are too many for a SqueezeNet")
    try:
        graph = onnx.load_from_string(path.read_bytes()).graph
    except Exception as error:
        raise ModelError(f"{path}: not an ONNX file: {error}") from error
    tensors = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3:
            if not tensors.keys() >= set(node.input[1:]):
                raise ModelError(f"{path}: the weights {node.input[1]!r} are not in the file")
            weight, bias = (numpy_helper.to_array(tensors[name]) for name in node.input[1:])
            yield weight.astype(np.float32), bias.astype(np.float32)
