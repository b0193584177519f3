"""Checkpoints: one safetensors file each, written whole or not at all; no pickle.

``last.safetensors`` holds weights, moving average, optimizer state and step, enough to continue exactly;
``best.safetensors`` the weights that did best on validation. Both name the detector's configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from squeezedet.errors import ModelError
from squeezedet.files import write_atomic
from squeezedet.models import registry
from squeezedet.models.network import DetectionNetwork

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


def build(described: Mapping[str, Any]) -> DetectionNetwork:
    """The detector that ``describe`` described, with random weights; errors of any kind where there is none such."""
    values = tuples(dict(described))
    kind = str(values.pop("detector"))
    detector: DetectionNetwork = registry.create(kind, registry.class_of(kind).config_type(**values))
    return detector


def new_detector(checkpoint: Checkpoint, where: Path) -> DetectionNetwork:
    """The detector that a checkpoint describes, with random weights; a ModelError if there is none such."""
    try:
        return build(checkpoint.metadata["config"])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{where}: holds no detector that this version knows: {error}") from error


def tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were, in a table, too."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def load_detector(path: Path) -> tuple[DetectionNetwork, Checkpoint]:
    """Build the detector that a checkpoint describes, with its best weights, in evaluation mode."""
    checkpoint = read(path)
    detector = new_detector(checkpoint, path)
    load_weights(detector, checkpoint.part("ema") or checkpoint.part("model"), path)
    return detector.eval(), checkpoint


def load_weights(detector: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Fill every tensor of a network; a ModelError names the first that does not fit, and what was expected."""
    wanted = detector.state_dict()
    for name, tensor in wanted.items():
        found = weights.get(name)
        if found is None or found.shape != tensor.shape:
            has = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise ModelError(f"{where}: {name} should have shape {tuple(tensor.shape)}, the file has {has}")
    extra = sorted(weights.keys() - wanted.keys())
    if extra:
        raise ModelError(f"{where}: holds {extra[0]}, which the network does not have")
    detector.load_state_dict(dict(weights))


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
