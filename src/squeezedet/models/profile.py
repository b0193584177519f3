"""What a network weighs: its graph from a name, a file or code, counted layer by layer; nothing is computed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from squeezedet.cost import onnx
from squeezedet.cost.graph import Graph
from squeezedet.cost.layers import Cost, Counting, MemoryPlan, count, memory_of
from squeezedet.errors import ModelError, UsageError
from squeezedet.models import registry
from squeezedet.models.trace import trace
from squeezedet.runtime import bundle

CROP_SIZE = (227, 227)
"""What a classifier gets by default: SqueezeNet's crop."""
FILES = (".bundle", ".sqz", ".safetensors", ".onnx")
CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""package.module:callable"""
MAX_ONNX_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Profile:
    """A network's cost and memory.

    Attributes:
        name: as it was asked for.
        cost: parameters, MACs, FLOPs and activations, layer by layer.
        memory: what is live while each layer runs.
        unsized: results that count as nothing, as their size depends on the data.
    """

    name: str
    cost: Cost
    memory: MemoryPlan
    unsized: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All numbers; sizes in bytes, ``flops`` is 2 x ``macs``."""
        cost, memory = self.cost, self.memory
        return {
            "name": self.name,
            "input": list(cost.input),
            "counting": cost.counting,
            "parameters": cost.parameters,
            "parameters_by_counting": cost.by_counting,
            "size_bytes": cost.size_bytes,
            "macs": cost.macs,
            "macs_with_norm": cost.macs + cost.norm_elements,
            "flops": cost.flops,
            "flops_paper": cost.flops_paper,
            "activation_bytes": cost.activation_bytes,
            "intensity": cost.intensity,
            "peak_live_bytes": memory.peak.live,
            "peak_live_layer": memory.peak.name,
            "largest_pair_bytes": memory.largest_pair.pair,
            "largest_pair_layer": memory.largest_pair.name,
            "layers": [{**asdict(layer), "flops": layer.flops, "intensity": layer.intensity} for layer in cost.layers],
            "schedule": [{**asdict(moment), "live": moment.live} for moment in memory.moments],
        }


def profile(
    model: str,
    *,
    size: tuple[int, int] | None = None,
    geometry: Literal["default", "paper"] | None = None,
    counting: Counting | None = None,
) -> Profile:
    """Count a network.

    Args:
        model: a network's name (these come first), a checkpoint, bundle or ONNX file, or ``package.module:callable``,
            which runs that code.
        size: (width, height) of the input in pixels; by default the network's own.
        geometry: of a ConvDet network by name; ``paper`` is 1242x375 unless ``size`` is given.
        counting: see ``cost.layers.COUNTINGS``; by default as the network's source counts, and every learned number of
            anything else.

    Raises:
        UsageError: there is no such network, or it does not take these values.
        ModelError: the file is damaged, or the network does not run at this size.
        MissingExtraError: an ONNX graph is to be read without onnx.
    """
    graph = _graph(model, size, geometry)
    if counting is None:
        known = registry.NETWORKS.get(model)
        counting = known.counting if known else "module"
    return Profile(model, count(graph, counting), memory_of(graph), graph.unsized)


def _graph(model: str, size: tuple[int, int] | None, geometry: str | None) -> Graph:
    if model in registry.NETWORKS:
        return _graph_of_network(model, size, geometry)
    path = Path(model)
    if geometry:
        raise UsageError("geometry: is for networks by name; a file or code has its own")
    if path.is_file():
        return _graph_of_file(path, size)
    if CODE.fullmatch(model):
        return _graph_of_module(from_code(model), size, model)
    if path.suffix in FILES or len(path.parts) > 1:
        raise UsageError(f"{model}: no such file")
    registry.find(model)  # says which names there are
    raise AssertionError(model)


def _graph_of_network(model: str, size: tuple[int, int] | None, geometry: str | None) -> Graph:
    entry = registry.find(model)
    known = {field.name for field in fields(registry.class_of(entry.kind).config_type)}
    changes: dict[str, Any] = {}
    if geometry:
        if "geometry" not in known:
            raise UsageError(f"geometry: {model} has only one; leave it out")
        changes["geometry"] = geometry
    if geometry == "paper":
        from squeezedet.models.squeezedet import PAPER_SIZE

        changes["size"] = size or PAPER_SIZE
    elif size and "size" in known:
        changes["size"] = size
    try:
        network = without_numbers(lambda: registry.build(model, **changes))
    except ValueError as error:
        raise UsageError(f"{model}: {error}") from error
    return _graph_of_module(network, size or (CROP_SIZE if entry.task == "classify" else None), model)


def _graph_of_module(module: nn.Module, size: tuple[int, int] | None, name: str) -> Graph:
    rule: Any = getattr(module, "input_rule", None)
    if size is None and rule is not None:
        size = (rule.width, rule.height)
    if size is None:
        raise UsageError(f"{name}: takes any size; give size in pixels")
    return trace(module, (1, 3, size[1], size[0]))


def _graph_of_file(path: Path, size: tuple[int, int] | None) -> Graph:
    if path.suffix in bundle.SUFFIXES:
        found = bundle.read(path)
        rule = found.card.input
        return onnx.read(found.graph, str(path), size or (rule.width, rule.height))
    if path.suffix == ".safetensors":
        from squeezedet.training.checkpoint import read_detector

        return _graph_of_module(read_detector(path)[0], size, str(path))
    if path.suffix != ".onnx":
        raise ModelError(f"{path}: none of the files that can be counted: {', '.join(FILES)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    return onnx.read(content, str(path), size)


def without_numbers(build: Callable[[], nn.Module]) -> nn.Module:
    """What ``build`` gives, on the meta device: no memory, no random numbers."""
    with torch.device("meta"):
        return build()


def from_code(place: str) -> nn.Module:
    """The module at ``package.module:name``, or what the callable there returns.

    This runs the code of that package; the current folder is searched, too.
    """
    package, name = place.split(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does
    try:
        made: Any = import_module(package)
        for part in name.split("."):
            made = getattr(made, part)
        if not isinstance(made, nn.Module):
            made = made()
    except Exception as error:  # it is the user's code: anything can come
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"{place}: gives no network: {said[0]}") from error
    if not isinstance(made, nn.Module):
        raise UsageError(f"{place}: gives a {type(made).__name__}, not a torch module")
    return made
