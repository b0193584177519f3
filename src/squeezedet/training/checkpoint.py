"""Checkpoints, and the weights that a run starts from.

A checkpoint is one safetensors file, written whole or not at all; no pickle. ``last.safetensors`` holds weights, moving
average, optimizer state and step, enough to continue exactly; ``best.safetensors`` the weights that did best on
validation. Both name the detector's configuration. A run may also start from published weights, or from a bundle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from squeezedet.errors import ModelError, UsageError
from squeezedet.files import write_atomic
from squeezedet.models import registry
from squeezedet.models.layers import fold_mean, kaiming_normal
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezedet import SqueezeDetBackbone
from squeezedet.pretrained.onnx_file import read_graph
from squeezedet.pretrained.read import check_fit, read_weights
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.parity import is_int8

FORMAT = "squeezedet checkpoint 1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors by name, and what they are: ``config``, ``step``, ``recipe``, results."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix.``, without it."""
        cut = len(prefix) + 1
        return {k[cut:]: v for k, v in self.tensors.items() if k.startswith(prefix + ".")}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The averaged weights, where the run averages."""
        return self.part("ema") or self.part("model")


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    text = {"format": FORMAT, "json": json.dumps(metadata)}
    write_atomic(path, save({k: v.detach().contiguous() for k, v in tensors.items()}, text))


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; a ModelError where the file is missing, damaged or none of ours."""
    return _read(path, lambda file: {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118


def read_metadata(path: Path) -> Mapping[str, Any]:
    """What a checkpoint says of itself; its tensors are not read. A ModelError as for ``read``."""
    return _read(path, lambda file: {}).metadata


def _read(path: Path, tensors_of: Callable[[Any], dict[str, Tensor]]) -> Checkpoint:
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ModelError(f"{path}: not a checkpoint of squeezedet")
            tensors = tensors_of(file)
        values = json.loads(metadata["json"])
        if not isinstance(values, dict):
            raise ValueError("its description is no object")
        return Checkpoint(tensors, values)
    except (SafetensorError, ValueError, KeyError, OSError, RecursionError) as error:
        raise ModelError(f"{path}: the checkpoint is damaged: {error}") from error


def is_ours(path: Path) -> bool:
    """Whether a file is a checkpoint of ours, whole or not, and no other weight file."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return path.name in ("last.safetensors", "best.safetensors")


def describe(detector: DetectionNetwork) -> dict[str, Any]:
    """A detector's kind and configuration as they stand in a checkpoint."""
    return {"detector": detector.kind, **asdict(detector.config)}


def _build(described: Mapping[str, Any], most: int) -> DetectionNetwork:
    """The detector that ``describe`` described, with random weights; errors of any kind where there is none such.

    One of more numbers than the ``most`` that its file can hold is an error before memory is taken.
    """
    values = tuples(dict(described))
    kind = str(values.pop("detector"))
    config = registry.class_of(kind).config_type(**values)
    with suppress(NotImplementedError), torch.device("meta"):
        numbers = sum(parameter.numel() for parameter in registry.create(kind, config).parameters())
        if numbers > most:
            raise ValueError(f"its network has {numbers:,} numbers, more than the file holds")
    detector: DetectionNetwork = registry.create(kind, config)
    return detector


def new_detector(checkpoint: Checkpoint, where: Path) -> DetectionNetwork:
    """The detector that a checkpoint describes, with random weights; a ModelError if there is none such."""
    try:
        most = sum(tensor.numel() for tensor in checkpoint.weights.values())
        return _build(checkpoint.metadata["config"], most)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{where}: holds no detector that this version knows: {error}") from error


def tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were, in a table, too."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def read_detector(path: Path) -> tuple[DetectionNetwork, Checkpoint]:
    """Build the detector that a checkpoint describes, with its best weights, in evaluation mode."""
    checkpoint = read(path)
    detector = new_detector(checkpoint, path)
    weights, wanted = checkpoint.weights, detector.state_dict()
    for name, tensor in wanted.items():
        found = weights.get(name)
        if found is None or found.shape != tensor.shape:
            has = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise ModelError(f"{path}: {name} should have shape {tuple(tensor.shape)}, the file has {has}")
    extra = sorted(weights.keys() - wanted.keys())
    if extra:
        raise ModelError(f"{path}: holds {extra[0]}, which the network does not have")
    detector.load_state_dict(weights)
    return detector.eval(), checkpoint


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name: ``NAME/KEY``."""
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` took."""
    parameters = dict(model.named_parameters())
    for name, tensor in state.items():
        parameter, key = name.rsplit("/", 1)
        place = parameters[parameter]
        # AdamW's step count stays on the processor.
        moved = tensor.clone() if key == "step" else tensor.to(place.device, copy=True)
        optimizer.state[place][key] = moved


# ------------------------------------------------------------ trained detectors


def load_detector(source: str) -> DetectionNetwork:
    """The network of a shipped model, a model file or a checkpoint, in evaluation mode.

    Raises:
        UsageError: there is no such file.
        ModelError: it is damaged, or the network cannot be had from it.
    """
    path = bundle.find(source)
    return read_detector(path)[0] if is_ours(path) else detector_of_bundle(bundle.read(path), path)


def detector_of_bundle(model: Bundle, where: Path) -> DetectionNetwork:
    """The network of a bundle, in evaluation mode: without batch normalization, with the card's input and selection."""
    card = model.card
    try:
        described = {"detector": card.detector, **(card.training.get("config") or {}), "classes": list(card.classes)}
        detector = _build(described, len(model.graph or b"")).folded()
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{where}: its card does not say what it was built from") from error
    detector.input_rule, detector.selection = card.input, card.selection
    detector.score_odds = tuple(card.training.get("score_odds") or ())
    left = _take_bundle(detector, model, where)
    if left:
        raise ModelError(f"{where}: holds no {left[0]} that fits what its card says")
    return detector


# ------------------------------------------------------------ the start of a run

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


def initialize(kind: str, config: Any, source: str | None = None, seed: int = 0) -> InitReport:
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
        random = _take_bundle(detector, bundle.read(path), path)
    elif source.endswith(".weights"):
        random = detector.load_darknet(Path(source))
    elif is_ours(Path(source)):
        random = _take_checkpoint(detector, Path(source))
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
    elif is_ours(Path(source)):
        known = read_metadata(Path(source))
    config = known.get("config")
    return config if isinstance(config, dict) else {}


def network_of(source: str | None) -> str:
    """The name of the network that ``source`` holds; SqueezeDet if it is none of our models."""
    kind = _config_of(source).get("detector") if source else None
    return next((name for name, entry in registry.NETWORKS.items() if entry.kind == kind), "squeezedet")


def shape_of(source: str, kind: str) -> dict[str, Any]:
    """The fields of a configuration that weights are bound to: anchors, widths, confidence loss.

    Confidences that learned by the quality focal loss mean something else than by squared errors.

    Args:
        source: as ``initialize`` takes it; nothing is known of files of others.
        kind: of the network that shall take its weights up.
    """
    known = _config_of(source)
    if (kind == TWO_SCALE) != (known.get("detector") == TWO_SCALE):
        return {}
    shape: dict[str, Any] = {
        name: tuple((int(w), int(h)) for w, h in known.get(name) or ()) for name in ("anchors", "fine_anchors")
    }
    shape["widths"] = tuple(int(channels) for channels in known.get("widths") or ())
    shape |= {name: int(known.get(name) or 0) for name in ("lateral", "mix")}
    shape["loss_focal"] = float(known.get("loss_focal") or 0)
    return {name: values for name, values in shape.items() if values}


# Each of these copies weights into a detector and returns the names of the parameters that keep their random ones; a
# ModelError where nothing fits.


def _take_bundle(detector: DetectionNetwork, model: Bundle, where: Path) -> tuple[str, ...]:
    """The weights of a float or int8 bundle of a SqueezeDet, or of a Tiny SSD that is ``folded``.

    The layers of other graphs are merged, and batch normalization that a graph has not cannot be found in it.
    """
    squeezedet = isinstance(getattr(detector, "backbone", None), SqueezeDetBackbone)
    normalized = any(isinstance(m, nn.BatchNorm2d) for m in detector.modules())
    if not squeezedet and (detector.kind != "tiny-ssd" or normalized):
        raise ModelError(
            f"{where}: a bundle's graph is no start for {detector.kind}: its layers are merged; "
            "start from a checkpoint of the run (.safetensors)"
        )
    stored = _tensors(model, where)
    kept = []
    for name, parameter in detector.named_parameters():
        array = stored.get(f"detector.{name}")
        if array is None and name.endswith(".bias"):  # left out where it is zero
            weight = stored.get(f"detector.{name.removesuffix('bias')}weight")
            array = None if weight is None else np.zeros(len(weight), np.float32)
        if array is not None and array.shape == tuple(parameter.shape):
            _copy(parameter, array)
        elif name.startswith(("convdet.", "fine.")):
            kept.append(name)
        else:
            raise ModelError(f"{where}: holds no {name} of shape {tuple(parameter.shape)}")
    # The graph's first layer takes raw pixels; the detector subtracts the mean itself.
    prefix = "backbone." if squeezedet else ""
    fold_mean(detector.get_submodule(f"{prefix}conv1"), -detector.get_buffer(f"{prefix}normalize.mean"))
    return tuple(kept)


def _tensors(model: Bundle, where: Path) -> Mapping[str, NDArray[np.float32]]:
    """The weights in a graph, by name."""
    if is_int8(model):
        from squeezedet.exporting.int8 import dequantize

        return dequantize(model.graph)
    return {name.removesuffix(".half"): tensor for name, tensor in read_graph(model.graph, where).tensors.items()}


def _take_checkpoint(detector: DetectionNetwork, path: Path) -> tuple[str, ...]:
    """Whatever of a checkpoint of ours has the same name and shape."""
    weights, own = read(path).weights, detector.state_dict()
    fitting = {n: t for n, t in weights.items() if n in own and t.shape == own[n].shape}
    parameters = [name for name, _ in detector.named_parameters()]
    if not any(name in fitting for name in parameters):
        raise ModelError(f"{path}: nothing of it fits {detector.kind}")
    detector.load_state_dict({**own, **fitting})
    return tuple(name for name in parameters if name not in fitting)


def load_squeezenet(detector: DetectionNetwork, path: Path) -> tuple[str, ...]:
    """A published SqueezeNet for the backbone of SqueezeDet or Tiny SSD.

    The files want BGR pixels minus the mean; the detector takes RGB, so the input channels of conv1 are turned around.
    """
    published = detector.published_backbone()
    if not published:
        raise ModelError(f"{path}: no weights of a SqueezeNet fit {detector.kind}")
    weights = read_weights(path)
    parameters = {theirs: detector.get_parameter(ours) for theirs, ours in published.items()}
    shapes = {theirs: tuple(parameter.shape) for theirs, parameter in parameters.items()}
    check_fit(shapes, weights, path, left_over=("conv10",))
    for theirs, parameter in parameters.items():
        array = weights[theirs]
        _copy(parameter, array[:, ::-1] if theirs == "conv1.weight" else array)
    placed = set(published.values())
    return tuple(name for name, _ in detector.named_parameters() if name not in placed)


@torch.no_grad()
def _copy(parameter: nn.Parameter, array: NDArray[Any]) -> None:
    parameter.copy_(torch.from_numpy(np.array(array, np.float32)))
