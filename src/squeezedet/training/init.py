"""The weights that a run starts from: published ones, a model of ours, or random ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from squeezedet.errors import ModelError, UsageError
from squeezedet.models import registry
from squeezedet.models.layers import kaiming_normal
from squeezedet.models.network import Config, DetectionNetwork
from squeezedet.models.squeezedet import SqueezeDetBackbone
from squeezedet.pretrained.onnx_file import read_graph
from squeezedet.pretrained.read import check_fit, read_weights
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.card import Card
from squeezedet.runtime.parity import is_int8
from squeezedet.training import checkpoint

TWO_SCALE = "two-scale"
SQUEEZENETS = ("squeezenet", "squeezenet-1.0", "squeezenet-1.1", "squeezenet_v1_1.onnx", "squeezenet_v1.1.caffemodel")
WHERE = (
    "get https://github.com/forresti/SqueezeNet/raw/master/SqueezeNet_v1.1/squeezenet_v1.1.caffemodel (4,950,080 "
    "bytes, sha256 72b912ace512e8621f8ff168a7d72af55910d3c7c9445af8dfbff4c2ee960142), and give its path"
)


@dataclass(frozen=True, slots=True)
class InitReport:
    """What became of the weights that a run starts from.

    Attributes:
        detector: the network.
        source: where its weights come from; None for random ones.
        random: the parameters that keep their random weights, by name.
    """

    detector: DetectionNetwork
    source: str | None
    random: tuple[str, ...]

    def describe(self) -> str:
        """One line: which layers were taken, and which are random."""
        if self.source is None:
            return "all weights are random"
        names = [name for name, _ in self.detector.named_parameters()]
        taken = _outline(names, set(names) - set(self.random))
        rest = _outline(names, set(self.random)) or "nothing"
        return f"taken from {self.source}: {taken}; random: {rest}"


def _outline(names: list[str], wanted: set[str]) -> str:
    """Names of parameters, shortened to the outermost layers that are wanted as a whole."""
    short = []
    for name in names:
        if name in wanted:
            parts = name.split(".")
            layers = (".".join(parts[:i]) for i in range(1, len(parts)))
            whole = (layer for layer in layers if all(n in wanted for n in names if n.startswith(f"{layer}.")))
            short.append(next(whole, name))
    return ", ".join(dict.fromkeys(short))


def initialize(kind: str, config: Config, source: str | None = None, seed: int = 0) -> InitReport:
    """Build a detector and give it its starting weights.

    Args:
        kind: of the network, see ``registry.KINDS``.
        config: what to build.
        source: None for random weights: those of each network, and for SqueezeDet by He's rule, since those of the
            paper's code, made to be replaced, are too small to learn from. Or a shipped model, a bundle or a
            checkpoint, of which everything that fits is taken; a published SqueezeNet for the backbone of SqueezeDet or
            Tiny SSD; darknet's .weights for a YOLO, with our classes, VOC's or COCO's.
        seed: of the random weights.

    Raises:
        ModelError: the source cannot be used.
    """
    if source in SQUEEZENETS and not Path(source).is_file():
        raise UsageError(f"init: {source} is no file; {WHERE}")
    torch.manual_seed(seed)
    detector: DetectionNetwork = registry.create(kind, config)
    random: Iterable[str]
    if source is None:
        backbone = getattr(detector, "backbone", None)
        if isinstance(backbone, SqueezeDetBackbone):  # the other networks begin with weights that learn
            kaiming_normal(backbone, "conv1")
        random = [name for name, _ in detector.named_parameters()]
    elif _is_bundle(source):
        path = bundle.find(source)
        random = load_bundle(detector, bundle.read(path), path)
    elif source.endswith(".weights"):
        random = detector.load_darknet(Path(source))
    elif checkpoint.is_ours(Path(source)):
        random = load_checkpoint(detector, Path(source))
    else:
        random = load_squeezenet(detector, Path(source))
    return InitReport(detector, source, tuple(random))


def _is_bundle(source: str) -> bool:
    return bundle.is_shipped(source) or source.endswith(bundle.SUFFIXES)


def _config_of(source: str) -> Mapping[str, Any]:
    """What a model or a checkpoint was built from; nothing for other files, or where it is unknown."""
    known: Mapping[str, Any] = {}
    if _is_bundle(source):
        known = bundle.read_card(bundle.find(source)).training
    elif checkpoint.is_ours(Path(source)):
        known = checkpoint.read_metadata(Path(source))
    config = known.get("config")
    return config if isinstance(config, dict) else {}


def network_of(source: str | None) -> str:
    """The name of the network that ``source`` holds; SqueezeDet if it is none of our models."""
    kind = _config_of(source).get("detector") if source else None
    return next((name for name, entry in registry.NETWORKS.items() if entry.kind == kind), "squeezedet")


def shape_of(source: str, kind: str) -> dict[str, Any]:
    """What weights of a detector with anchors are bound to: anchors, widths, confidence loss.

    Confidences that learned by the quality focal loss mean something else than by squared errors.

    Args:
        source: as ``initialize`` takes it.
        kind: of the network that shall take them up.

    Returns:
        Fields of the network's configuration; none for other files, or what is unknown.
    """
    known = _config_of(source)
    if (kind == TWO_SCALE) != (known.get("detector") == TWO_SCALE):
        return {}
    shape: dict[str, Any] = {
        name: tuple((int(w), int(h)) for w, h in known.get(name) or ()) for name in ("anchors", "fine_anchors")
    }
    shape["widths"] = tuple(int(channels) for channels in known.get("widths") or ())
    shape |= {name: int(known.get(name) or 0) for name in ("lateral", "mix")}
    focal = known.get("loss_focal")
    found: dict[str, Any] = {name: values for name, values in shape.items() if values}
    return found | ({"loss_focal": float(focal)} if focal else {})


def load_bundle(detector: DetectionNetwork, model: Bundle, where: Path) -> tuple[str, ...]:
    """Copy the weights of a bundle, to train on from them; ConvDet only if its shape fits.

    Args:
        detector: a SqueezeDet, or a Tiny SSD that is ``folded``; changed in place.
        model: float or int8.
        where: its path, for the errors.

    Returns:
        The names of the parameters that keep their random weights.

    Raises:
        ModelError: the bundle holds another network.
    """
    first = _first_layer(detector)
    if not first:
        raise ModelError(
            f"{where}: a bundle's graph is no start for {detector.kind}: its layers are merged; "
            "start from a checkpoint of the run (.safetensors)"
        )
    stored = _tensors(model, where)
    kept = []
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            array = stored.get(f"detector.{name}")
            if array is None and name.endswith(".bias"):  # left out where it is zero
                weight = stored.get(f"detector.{name.removesuffix('bias')}weight")
                array = None if weight is None else np.zeros(len(weight), np.float32)
            if array is not None and array.shape == tuple(parameter.shape):
                parameter.copy_(_tensor(array))
            elif name.startswith(("convdet.", "fine.")):
                kept.append(name)
            else:
                raise ModelError(f"{where}: holds no {name} of shape {tuple(parameter.shape)}")
        # The graph's first layer takes raw pixels; the detector subtracts the mean itself.
        prefix = first.removesuffix("conv1")
        mean = detector.get_buffer(f"{prefix}normalize.mean").double().view(3)
        colors = detector.get_parameter(f"{first}.weight").double().sum((2, 3))
        detector.get_parameter(f"{first}.bias").add_((colors @ mean).float())
    return tuple(kept)


def _tensors(model: Bundle, where: Path) -> Mapping[str, NDArray[np.float32]]:
    """The weights in a graph, by name."""
    if is_int8(model):
        from squeezedet.exporting.int8 import dequantize

        return dequantize(model.graph)
    return {name.removesuffix(".half"): tensor for name, tensor in read_graph(model.graph, where).tensors.items()}


def load_checkpoint(detector: DetectionNetwork, path: Path) -> tuple[str, ...]:
    """Copy whatever of a checkpoint of ours has the same name and shape; returns and raises as ``load_bundle``."""
    saved, own = checkpoint.read(path), detector.state_dict()
    weights = saved.part("ema") or saved.part("model")
    fitting = {n: t for n, t in weights.items() if n in own and t.shape == own[n].shape}
    parameters = [name for name, _ in detector.named_parameters()]
    if not any(name in fitting for name in parameters):
        raise ModelError(f"{path}: nothing of it fits {detector.kind}")
    detector.load_state_dict({**own, **fitting})
    return tuple(name for name in parameters if name not in fitting)


def load_squeezenet(detector: DetectionNetwork, path: Path) -> tuple[str, ...]:
    """Copy a published SqueezeNet into the backbone of SqueezeDet or Tiny SSD; returns and raises as ``load_bundle``.

    The files want BGR pixels minus the mean; the detector takes RGB, so the input channels of conv1 are turned around.
    """
    published = detector.published_backbone()
    if not published:
        raise ModelError(f"{path}: no weights of a SqueezeNet fit {detector.kind}")
    weights = read_weights(path)
    parameters = {theirs: detector.get_parameter(ours) for theirs, ours in published.items()}
    shapes = {theirs: tuple(parameter.shape) for theirs, parameter in parameters.items()}
    check_fit(shapes, weights, path, left_over=("conv10",))
    with torch.no_grad():
        for theirs, parameter in parameters.items():
            array = weights[theirs]
            parameter.copy_(_tensor(array[:, ::-1] if theirs == "conv1.weight" else array))
    placed = set(published.values())
    return tuple(name for name, _ in detector.named_parameters() if name not in placed)


def _first_layer(detector: DetectionNetwork) -> str:
    """The layer that subtracts the mean in a graph whose layers are those of the network; empty if there is none.

    Batch normalization that the graph has not cannot be found in it.
    """
    if _is_squeezedet(detector):
        return "backbone.conv1"
    normalized = any(isinstance(m, nn.BatchNorm2d) for m in detector.modules())
    return "conv1" if detector.kind == "tiny-ssd" and not normalized else ""


def _is_squeezedet(detector: nn.Module) -> bool:
    return isinstance(getattr(detector, "backbone", None), SqueezeDetBackbone)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


# ------------------------------------------------------------ trained detectors

FIRST_NAMES = {"squeezedet": "convdet"}
"""How the first bundles called a kind of network."""


def load_detector(source: str) -> DetectionNetwork:
    """The network of a shipped model, a model file or a checkpoint, in evaluation mode.

    Raises:
        UsageError: there is no such file.
        ModelError: it is damaged, or the network cannot be had from it.
    """
    path = bundle.find(source)
    if checkpoint.is_ours(path):
        return checkpoint.load_detector(path)[0]
    return detector_of_bundle(bundle.read(path), path)


def detector_of_bundle(model: Bundle, where: Path) -> DetectionNetwork:
    """The network of a bundle, in evaluation mode: without batch normalization, with the card's input and selection."""
    card = model.card
    detector = _described(card, where).folded()
    detector.input_rule, detector.selection = card.input, card.selection
    detector.score_odds = tuple(card.training.get("score_odds") or ())
    left = load_bundle(detector, model, where)
    if left:
        raise ModelError(f"{where}: holds no {left[0]} that fits what its card says")
    return detector


def _described(card: Card, path: Path) -> DetectionNetwork:
    config = dict(card.training.get("config") or {})
    kind = str(config.pop("detector", card.detector))
    described = {**config, "detector": FIRST_NAMES.get(kind, kind), "classes": list(card.classes)}
    try:
        return checkpoint.build(described)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: its card does not say what it was built from") from error
