"""``squeezedet benchmark`` and ``profile``: how long models take on this machine, and what a network weighs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from squeezedet.cli import options
from squeezedet.cli.options import STDOUT, check_target, say, table, write_json
from squeezedet.text import align, parse_size

if TYPE_CHECKING:
    from squeezedet.cost.layers import Cost, Layer, MemoryPlan
    from squeezedet.models.profile import Profile

ROUNDS = 100
MAX_ROUNDS = 1_000_000
LAYER_HEAD = ["layer", "kind", "output", "parameters", "MMAC", "MFLOP (paper)", "activation MiB", "FLOP/byte"]

Geometry = Literal["default", "paper"]
Counting = Literal["module", "stored", "layers", "paper"]
"""What counts as a parameter, see ``squeezedet.cost.layers``."""


def benchmark(
    models: options.Models,
    *,
    engine: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="Engine, or auto; give it again for more [default: the file's own]."),
    ] = None,
    size: options.Size = None,
    images: Annotated[
        Path | None,
        Option(
            metavar="DIR|DATA", help="Images, or labelled images in any layout [default: a demo picture, 1242x375]."
        ),
    ] = None,
    split: options.Split = None,
    threads: options.Threads = None,
    rounds: Annotated[int | None, Option(min=1, max=MAX_ROUNDS, help="Timed rounds [default: 100].")] = None,
    seconds: Annotated[float | None, Option(min=0.1, help="Time for the rounds; the rest of them is left out.")] = None,
    out: options.JsonOut = None,
    trust_model: options.TrustModel = False,
) -> None:
    """Time models in engines, by turns on the same frames: A B A B ...

    Prints medians and 95th percentiles of each stage, ratios to the first candidate with their
    spread, size, operations and peak memory. Let nothing else run meanwhile.

    Examples:
      squeezedet benchmark street
      squeezedet benchmark street --engine onnxruntime --engine openvino -o times.json
      squeezedet benchmark best.bundle small.bundle --images photos --threads 2
      squeezedet benchmark street --size 624x192 --rounds 50
    """
    from squeezedet.benchmark import latency

    check_target(out)
    input_size = parse_size(size) if size else None
    engines: list[str | None] = [*engine] if engine else [None]
    candidates = latency.candidates_of(models, engines, threads=threads, size=input_size, trust_model=trust_model)
    rounds = rounds or (ROUNDS if seconds is None else MAX_ROUNDS)
    with latency.pictures_of(images, split) as pictures:
        found = latency.run(candidates, pictures, rounds=rounds, seconds=seconds, threads=threads)
    if out != STDOUT:
        print(f"{found.date}\n{latency.describe_machine(found.machine, threads)}")
        for one in latency.tables(found):
            print(f"\n{one.title}")
            table(one.rows, left=range(one.words))
    for sentence in dict.fromkeys([*(c.note for c in candidates), *found.warnings]):
        if sentence:
            say(sentence)
    write_json(out, found.to_dict())


def profile(
    model: Annotated[
        str,
        Argument(
            metavar="MODEL",
            help="Network by name, checkpoint, bundle, ONNX file, or package.module:callable (runs that code).",
            show_default=False,
        ),
    ],
    *,
    size: options.Size = None,
    geometry: Annotated[
        Geometry | None, Option(help="ConvDet networks: the paper's (1242x375 unless --size), or ours.")
    ] = None,
    counting: Annotated[
        Counting | None,
        Option(
            help="Parameters: learned ones; also batch-norm statistics; convolutions and products "
            "only; or as SqueezeDet's counter does [default: as the network's source counts]."
        ),
    ] = None,
    out: options.JsonOut = None,
) -> None:
    """Count parameters, MACs, FLOPs, activations and memory of a network, layer by layer.

    The network runs once without being computed, so it needs neither weights nor time.
    `profile squeezedet --geometry paper` prints Table 1 of the paper's supplement.

    Examples:
      squeezedet profile squeezedet --geometry paper
      squeezedet profile vgg16-convdet -o - | jq .flops_paper
      squeezedet profile runs/roads/squeezedet.bundle
      squeezedet profile torchvision.models:mobilenet_v3_small --size 224x224
    """
    from squeezedet.models import profile as profiles
    from squeezedet.papers import supplement

    found = profiles.profile(model, size=parse_size(size) if size else None, geometry=geometry, counting=counting)
    if out != STDOUT:
        _print(found, printed=geometry == "paper" and supplement.describes(found.cost))
    write_json(out, found.to_dict())


def _print(found: Profile, printed: bool) -> None:
    """The layers and the sums; Table 1 of the supplement for the network that it describes."""
    from squeezedet.papers import supplement

    print(f"{found.name}  input {'x'.join(map(str, found.cost.input))}\n")
    if printed:
        print(supplement.SUPPLEMENT_TITLE)
        table(supplement.supplement_table(found.cost), left=supplement.SUPPLEMENT_LEFT)
        print(supplement.SUPPLEMENT_NOTE)
    else:
        shown = [one for one in found.cost.layers if one.parameters or one.macs or one.activation_bytes]
        table([LAYER_HEAD, *map(_layer, shown)], left=(0, 1))
        if rest := len(found.cost.layers) - len(shown):
            print(f"and {rest} without weights or products (sums, copies, ...)")
    print(f"\n{align(_sums(found.cost, found.memory), left=(0, 1))}")
    if found.unsized:
        print(f"not counted, as its size depends on the data: {', '.join(found.unsized[:8])}")


def _layer(layer: Layer) -> list[str]:
    from squeezedet.cost.layers import MIB

    return [
        *(layer.name, layer.kind, "x".join(map(str, layer.output))),
        f"{layer.parameters:,}" if layer.parameters else "",
        f"{layer.macs / 1e6:.1f}" if layer.macs else "",
        f"{layer.flops_paper / 1e6:.1f}" if layer.flops_paper else "",
        f"{layer.activation_bytes / MIB:.3f}" if layer.activation_bytes else "",
        f"{layer.intensity:.1f}" if layer.macs else "",
    ]


def _sums(cost: Cost, memory: MemoryPlan) -> list[tuple[str, str]]:
    """The sums, and what they mean for memory."""
    from squeezedet.cost.layers import COUNTINGS, MIB, SRAM_BYTES

    def exact(number: int) -> str:
        return f"{number:,} ({number / 1e9:.3f} x 10^9)"

    pair, peak = memory.largest_pair, memory.peak
    together = pair.pair + cost.size_bytes
    fits = "fit" if together <= SRAM_BYTES else "do not fit"
    others = {name: number for name, number in cost.by_counting.items() if number != cost.parameters}
    return [
        ("parameters", f"{cost.parameters:,} ({COUNTINGS[cost.counting]})"),
        *(("", f"{number:,} ({COUNTINGS[name]})") for name, number in others.items()),
        ("size", f"{cost.size_bytes / MIB:.3f} MiB as float32"),
        ("MACs", exact(cost.macs)),
        ("FLOPs", f"{exact(cost.flops)}, 2 a MAC"),
        ("FLOPs, paper", f"{exact(cost.flops_paper)}, with biases and ReLU"),
        ("activations", f"{cost.activation_bytes / MIB:.2f} MiB in all, as float32"),
        ("peak memory", f"{peak.live / MIB:.2f} MiB live at {peak.name}"),
        ("largest pair", f"{pair.pair / MIB:.2f} MiB, input and output of {pair.name}"),
        ("16 MiB of SRAM", f"pair and parameters, {together / MIB:.2f} MiB, {fits}"),
        ("intensity", f"{cost.intensity:.1f} FLOPs per byte moved"),
    ]
