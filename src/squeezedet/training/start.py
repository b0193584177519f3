"""The weights that a run starts from: SqueezeNet v1.1, a bundle, or random ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from squeezedet.detectors import zoo
from squeezedet.detectors.convdet import ConvDet
from squeezedet.detectors.network import Config, DetectionNetwork
from squeezedet.detectors.normalise import MEAN_RGB
from squeezedet.detectors.squeezedet import SqueezeDetBackbone
from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.runtime import bundle

MAX_BYTES = 64_000_000
PIXEL_SPREAD = 64.0  # standard deviation of a pixel, roughly: conv1 sees pixels, not unit noise
BACKBONE = ("conv1", *(f"fire{i}" for i in range(2, 10)))


def new_detector(
    kind: str, config: Config, source: str | None = None, seed: int = 0
) -> DetectionNetwork:
    """A detector with its starting weights.

    Args:
        kind: of the network, see ``zoo.KINDS``.
        config: what to build.
        source: ONNX file of SqueezeNet v1.1 for the backbone; or the name of a shipped model or
            the path of a bundle, of which everything that fits is taken; None for random
            weights by He's rule (arXiv 1502.01852), since those of the paper's code, made
            to be replaced, are too small to learn from.
        seed: of the random weights.

    Raises:
        ModelError: the source cannot be used.
    """
    torch.manual_seed(seed)
    detector: DetectionNetwork = zoo.class_of(kind)(config)
    if source is None:
        _he(detector)
    elif source in bundle.shipped() or source.endswith(bundle.SUFFIX):
        load_bundle(detector, bundle.find(source))
    else:
        load_squeezenet(detector, Path(source))
    return detector


def load_bundle(detector: DetectionNetwork, path: Path) -> tuple[str, ...]:
    """Copy the weights of a bundle, to train on from them; ConvDet only if its shape fits.

    Args:
        detector: changed in place.
        path: of the bundle.

    Returns:
        The names of the parameters that keep their random weights.

    Raises:
        ModelError: the bundle is damaged, or holds another network.
    """
    graph = _graph(bundle.read(path).graph, path)
    stored = {t.name.removesuffix(".half"): t for t in graph.initializer}
    kept = []
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            tensor = stored.get(f"detector.{name}") or stored.get(f"detector.{_flat(name)}")
            fits = tensor is not None and tuple(tensor.dims) == tuple(parameter.shape)
            if fits:
                parameter.copy_(torch.from_numpy(_float32(tensor)))
            elif name.startswith("convdet."):
                kept.append(name)
            else:
                raise ModelError(f"{path}: holds no {name} of shape {tuple(parameter.shape)}")
        # The graph's conv1 takes raw pixels; the detector subtracts the mean itself.
        mean = torch.tensor(MEAN_RGB, dtype=torch.float64)
        weight = detector.get_parameter("backbone.conv1.weight").double().sum((2, 3))
        detector.get_parameter("backbone.conv1.bias").add_((weight @ mean).float())
    return tuple(kept)


def load_squeezenet(detector: DetectionNetwork, path: Path) -> tuple[str, ...]:
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
            wanted = detector.get_parameter(f"backbone.{name}.weight")
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
            detector.get_parameter(f"backbone.{name}.bias").copy_(torch.from_numpy(bias))
    children = (*detector.get_submodule("backbone").named_children(), *detector.named_children())
    new = (name for name, child in children if list(child.parameters()))
    return tuple(name for name in new if name not in (*BACKBONE, "backbone"))


def _flat(name: str) -> str:
    return name.removeprefix("backbone.")


def _he(detector: DetectionNetwork) -> None:
    """He's rule for SqueezeDet; the other networks begin with weights that learn."""
    if not isinstance(detector, ConvDet) or not isinstance(detector.backbone, SqueezeDetBackbone):
        return
    for name, parameter in detector.backbone.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    with torch.no_grad():
        detector.backbone.get_parameter("conv1.weight").div_(PIXEL_SPREAD)


def _backbone_layers() -> list[str]:
    parts = ("squeeze1x1", "expand1x1", "expand3x3")
    return ["conv1"] + [f"{fire}.{part}" for fire in BACKBONE[1:] for part in parts]


def _convolutions(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weights (O, I, H, W) and biases (O,) of each convolution of a graph, as float32."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: {path.stat().st_size} bytes are too many for a SqueezeNet")
    graph = _graph(path.read_bytes(), path)
    tensors = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3:
            if not tensors.keys() >= set(node.input[1:]):
                raise ModelError(f"{path}: the weights {node.input[1]!r} are not in the file")
            weight, bias = (_float32(tensors[name]) for name in node.input[1:])
            yield weight, bias


def _graph(content: bytes, path: Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("reading an ONNX file", "train") from error
    try:
        return onnx.load_from_string(content).graph
    except Exception as error:  # protobuf's errors share no public base class
        raise ModelError(f"{path}: not an ONNX file: {error}") from error


def _float32(tensor: Any) -> np.ndarray:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor), np.float32).copy()
