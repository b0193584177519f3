"""``squeezedet profile``: what a network weighs, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from squeezedet.cli import options
from squeezedet.cli.output import STDOUT, write_json

if TYPE_CHECKING:
    from squeezedet.models.profile import Profile

EXAMPLES = """\
  squeezedet profile squeezedet --geometry paper
  squeezedet profile vgg16-convdet -o - | jq .flops_paper
  squeezedet profile runs/roads/squeezedet.bundle --plot memory.svg
  squeezedet profile torchvision.models:mobilenet_v3_small --size 224x224
  squeezedet profile --table1
"""


Geometry = Literal["default", "paper"]
Counting = Literal["module", "stored", "layers", "paper"]
"""What counts as a parameter, see ``squeezedet.cost.layers``."""


def profile(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Network by name, checkpoint, bundle, ONNX file, or package.module:callable (runs that code)."
        ),
    ] = None,
    *,
    size: options.Size = None,
    geometry: Annotated[
        Geometry | None, typer.Option(help="ConvDet networks: the paper's (1242x375 unless --size), or ours.")
    ] = None,
    counting: Annotated[
        Counting | None,
        typer.Option(
            help="Parameters: learned ones; also batch-norm statistics; convolutions and products "
            "only; or as SqueezeDet's counter does [default: as the network's source counts]."
        ),
    ] = None,
    out: options.JsonOut = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw memory along the layers (SVG).")] = None,
    table1: Annotated[bool, typer.Option("--table1", help="RPN, ConvDet and FcDet side by side.")] = False,
) -> None:
    """Count parameters, MACs, FLOPs, activations and memory of a network, layer by layer.

    The network runs once without being computed, so it needs neither weights nor time.
    `profile squeezedet --geometry paper` prints Table 1 of the paper's supplement.
    """
    from squeezedet.errors import UsageError
    from squeezedet.files import write_atomic
    from squeezedet.text import parse_size

    if model is None and not table1:
        raise UsageError("say which network, or --table1; try: squeezedet profile squeezedet")
    from squeezedet.models import profile as profiles
    from squeezedet.papers import supplement

    if table1:
        print(supplement.detection_table(supplement.table1()))
    if model is None:
        return
    found = profiles.profile(model, size=parse_size(size) if size else None, geometry=geometry, counting=counting)
    if out != STDOUT:
        print(_text(found, geometry))
    write_json(out, found.to_dict())
    if plot:
        from squeezedet.cost.memory import memory_chart

        title = f"{model}: live memory along the layers"
        write_atomic(plot, memory_chart(title, found.memory) + "\n")


def _text(found: Profile, geometry: Geometry | None) -> str:
    """The layers and the sums; Table 1 of the supplement for the network that it describes."""
    from squeezedet.cost import text
    from squeezedet.papers import supplement

    cost = found.cost
    printed = geometry == "paper" and supplement.describes(cost)
    table = supplement.supplement_table(cost) if printed else text.layer_table(cost)
    head = f"{found.name}  input {'x'.join(map(str, cost.input))}"
    notes = ""
    if found.unsized:
        notes = f"\nnot counted, as its size depends on the data: {', '.join(found.unsized[:8])}"
    return f"{head}\n\n{table}\n\n{text.totals_table(cost, found.memory)}{notes}"
