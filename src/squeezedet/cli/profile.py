"""``squeezedet profile``: what a network weighs, layer by layer."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from squeezedet.cost.graph import Graph
    from squeezedet.cost.layers import Cost
    from squeezedet.papers.memory_plan import MemoryPlan

EXAMPLES = """\
  squeezedet profile squeezedet --geometry paper
  squeezedet profile vgg16-convdet --json - | jq .flops_paper
  squeezedet profile runs/roads/squeezedet.bundle --plot memory.svg
  squeezedet profile torchvision.models:mobilenet_v3_small --size 224x224
  squeezedet profile --table1
"""

CLASSIFIED_SIZE = (227, 227)
"""What a classifier gets by default: SqueezeNet's crop."""
FILES = (".bundle", ".sqz", ".safetensors", ".onnx")
CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""package.module:callable"""


class GeometryName(StrEnum):
    """The geometries of the ConvDet networks."""

    default = "default"
    paper = "paper"


class CountingName(StrEnum):
    """What counts as a parameter, see ``squeezedet.cost.layers``."""

    module = "module"
    stored = "stored"
    layers = "layers"
    paper = "paper"


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which network, at which size."""

    model: str
    size: tuple[int, int] | None
    geometry: GeometryName | None


def profile(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Network by name, checkpoint, bundle, ONNX file, or package.module:callable "
            "(runs that code).",
        ),
    ] = None,
    *,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Input in pixels [default: the network's].")
    ] = None,
    geometry: Annotated[
        GeometryName | None,
        typer.Option(help="ConvDet networks: the paper's (1242x375 unless --size), or ours."),
    ] = None,
    counting: Annotated[
        CountingName | None,
        typer.Option(
            help="Parameters: learned ones; also batch-norm statistics; convolutions and products "
            "only; or as SqueezeDet's counter does [default: as the network's source counts]."
        ),
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write all numbers as JSON.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw memory along the layers (SVG).")
    ] = None,
    table1: Annotated[
        bool, typer.Option("--table1", help="RPN, ConvDet and FcDet side by side.")
    ] = False,
) -> None:
    """Count parameters, MACs, FLOPs, activations and memory of a network, layer by layer.

    The network runs once without being computed, so it needs neither weights nor time.
    `profile squeezedet --geometry paper` prints Table 1 of the paper's supplement.
    """
    from squeezedet.errors import MissingExtraError, UsageError
    from squeezedet.text import parse_size

    if model is None and not table1:
        raise UsageError("say which network, or --table1; try: squeezedet profile squeezedet")
    try:
        from squeezedet.cost import text
        from squeezedet.cost.layers import count
        from squeezedet.papers.memory_plan import plan
        from squeezedet.papers.supplement import table1 as detection_layers
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "squeezedet":
            raise
        raise MissingExtraError("profile", "train") from error
    if table1:
        print(text.detection_table(detection_layers()))
    if model is None:
        return
    asked = _Asked(model, parse_size(size, "--size") if size else None, geometry)
    graph = _graph(asked)
    way = counting.value if counting else _counting(asked)
    cost, memory = count(graph, way), plan(graph)
    if json_file != "-":
        print(_told(asked, graph, cost, memory))
    _write(asked, cost, memory, json_file, plot)


def _counting(asked: _Asked) -> Literal["module", "stored", "layers", "paper"]:
    """How the source of a network of the zoo counts; every learned number of anything else."""
    from squeezedet.models.registry import NETWORKS

    return NETWORKS[asked.model].counting if asked.model in NETWORKS else "module"


# ---------------------------------------------------------------------- reading


def _graph(asked: _Asked) -> Graph:
    """The graph of what was asked for; a name of the zoo comes before a file."""
    from squeezedet.cost.sources import from_code
    from squeezedet.errors import UsageError
    from squeezedet.models import registry

    if asked.model in registry.NETWORKS:
        return _of_network(asked)
    path = Path(asked.model)
    if asked.geometry:
        raise UsageError("--geometry: is for networks by name; a file or code has its own")
    if path.is_file():
        return _of_file(path, asked.size)
    if CODE.fullmatch(asked.model):
        return _of_module(from_code(asked.model), asked.size, asked.model)
    if path.suffix in FILES or len(path.parts) > 1:
        raise UsageError(f"{asked.model}: no such file")
    registry.find(asked.model)  # says which names there are
    raise AssertionError(asked.model)


def _of_network(asked: _Asked) -> Graph:
    from squeezedet.cost.sources import without_numbers
    from squeezedet.errors import UsageError
    from squeezedet.models import registry

    entry = registry.find(asked.model)
    known = {field.name for field in fields(registry.class_of(entry.kind).config_type)}
    changes: dict[str, Any] = {}
    if asked.geometry:
        if "geometry" not in known:
            raise UsageError(f"--geometry: {asked.model} has only one; leave it out")
        changes["geometry"] = asked.geometry.value
    if asked.geometry is GeometryName.paper:
        from squeezedet.models.squeezedet import PAPER_SIZE

        changes["size"] = asked.size or PAPER_SIZE
    elif asked.size and "size" in known:
        changes["size"] = asked.size
    try:
        network = without_numbers(lambda: registry.build(asked.model, **changes))
    except ValueError as error:
        raise UsageError(f"{asked.model}: {error}") from error
    size = asked.size or (CLASSIFIED_SIZE if entry.task == "classify" else None)
    return _of_module(network, size, asked.model)


def _of_module(module: Any, size: tuple[int, int] | None, name: str) -> Graph:
    from squeezedet.cost.trace import trace
    from squeezedet.errors import UsageError

    rule = getattr(module, "input_rule", None)
    if size is None and rule is not None:
        size = (rule.width, rule.height)
    if size is None:
        raise UsageError(f"{name}: takes any size; say which with --size WxH")
    return trace(module, (1, 3, size[1], size[0]))


def _of_file(path: Path, size: tuple[int, int] | None) -> Graph:
    from squeezedet.cost import onnx
    from squeezedet.errors import ModelError
    from squeezedet.runtime import bundle

    if path.suffix in bundle.SUFFIXES:
        found = bundle.read(path)
        rule = found.card.input
        return onnx.read(found.graph, str(path), size or (rule.width, rule.height))
    if path.suffix == ".safetensors":
        from squeezedet.training.checkpoint import load_detector

        return _of_module(load_detector(path)[0], size, str(path))
    if path.suffix != ".onnx":
        raise ModelError(f"{path}: none of the files that can be counted: {', '.join(FILES)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    return onnx.read(content, str(path), size)


# ---------------------------------------------------------------------- writing


def _told(asked: _Asked, graph: Graph, cost: Cost, memory: MemoryPlan) -> str:
    from squeezedet.cost import text
    from squeezedet.papers import supplement

    paper = asked.model == "squeezedet" and asked.geometry is GeometryName.paper
    exact = paper and supplement.describes(cost)
    table = text.supplement_table(cost) if exact else text.layers(cost)
    head = f"{asked.model}  input {'x'.join(map(str, cost.input))}"
    notes = ""
    if graph.unsized:
        notes = f"\nnot counted, as its size depends on the data: {', '.join(graph.unsized[:8])}"
    return f"{head}\n\n{table}\n\n{text.totals(cost, memory)}{notes}"


def _write(
    asked: _Asked, cost: Cost, memory: MemoryPlan, json_file: str | None, plot: Path | None
) -> None:
    from squeezedet.files import write_atomic
    from squeezedet.papers.memory_plan import memory_chart

    content = json.dumps(as_json(asked.model, cost, memory), indent=2)
    if json_file == "-":
        print(content)
    elif json_file:
        write_atomic(Path(json_file), content + "\n")
    if plot:
        write_atomic(plot, memory_chart(f"{asked.model}: live memory along the layers", memory))


def as_json(name: str, cost: Cost, memory: MemoryPlan) -> dict[str, Any]:
    """All numbers of a profile; sizes in bytes, ``flops`` is 2 x ``macs``."""
    return {
        "name": name,
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
        "peak_live_exact": memory.exact,
        "largest_pair_bytes": memory.largest_pair.pair,
        "largest_pair_layer": memory.largest_pair.name,
        "layers": [
            {**asdict(layer), "flops": layer.flops, "intensity": layer.intensity}
            for layer in cost.layers
        ],
        "schedule": [{**asdict(moment), "live": moment.live} for moment in memory.moments],
    }
