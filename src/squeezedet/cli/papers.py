"""``squeezedet papers`` and ``classify``: what reproduces the papers' tables and figures, and SqueezeNet itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option

from squeezedet.cli import options
from squeezedet.cli.options import STDOUT, check_target, say, table, write_json
from squeezedet.errors import DataError, UsageError
from squeezedet.files import make_folder, write_atomic
from squeezedet.text import align

if TYPE_CHECKING:
    from squeezedet.benchmark.meter import EnergyReading
    from squeezedet.papers.compare import ComparisonRow


def compare(
    models: options.Models,
    *,
    data: Annotated[
        Path | None, Option(metavar="DIR|FILE", help="Labelled images to find AP on [default: the AP of the card].")
    ] = None,
    split: options.Split = None,
    rules: options.Rules = "paper",
    engine: options.Engine = None,
    threads: options.Threads = None,
    rounds: Annotated[int, Option(min=1, help="Timed rounds, by turns.")] = 50,
    energy: Annotated[str, Option(metavar="METER", help="nvml, rapl, none, or auto.")] = "auto",
    seconds: Annotated[float, Option(min=0.1, help="How long each model works for its joules.")] = 10.0,
    out: options.JsonOut = None,
    plots: Annotated[Path | None, Option(metavar="DIR", help="Draw the paper's Fig. 6: speed.svg, size.svg.")] = None,
    trust_model: options.TrustModel = False,
) -> None:
    """Put models into the paper's Tables 2 and 3: AP, size, operations, speed, joules.

    The paper's own rows stand beside, marked as quoted: they are of other images and of a
    TITAN X. AP is the 11-point one, on --data by --rules, or else what the model's card says.

    Examples:
      squeezedet papers compare street
      squeezedet papers compare street small.bundle --data roads --split val --rules paper
      squeezedet papers compare *.bundle --engine openvino -o models.json
      squeezedet papers compare street --energy rapl --plots plots
    """
    given = options.given(locals(), without=("out", "plots"))
    from squeezedet.papers import compare as library

    check_target(out)
    if plots:
        make_folder(plots)
    measured, notes = library.compare(**given)
    rows = [*measured, *library.ROWS]
    if out != STDOUT:
        _print_tables(rows)
    write_json(out, [row.record() for row in rows])
    if plots:
        for name, picture in library.draw_plots(rows).items():
            write_atomic(plots / f"{name}.svg", picture)
            notes.append(f"plot: {plots / name}.svg")
    for note in notes:
        say(note)


def energy(
    *,
    power_log: Annotated[Path | None, Option(metavar="FILE", help="Recorded power: CSV of time_s,power_w.")] = None,
    frames: Annotated[int | None, Option(min=1, max=1_000_000_000, help="Frames in the log's working period.")] = None,
    threshold: Annotated[
        float | None, Option(metavar="W", help="The least power that is work [default: 20, the paper's].")
    ] = None,
    out: options.JsonOut = None,
    list_meters: Annotated[bool, Option("--list", help="Say which meters work on this machine.")] = False,
) -> None:
    """Joules per frame from a recorded power log, as the paper's supplement finds them.

    Samples of at least 20 W are the working period, the mean of its middle third is the power,
    and joules per frame = watts / frames per second. Idle power is not subtracted; the figure
    without it stands beside.

    Examples:
      squeezedet papers energy --power-log power.csv --frames 3741
      squeezedet papers energy --power-log jetson.csv --frames 500 --threshold 5 -o -
      squeezedet papers energy --list
    """
    if list_meters:
        if any(option is not None for option in (power_log, frames, threshold, out)):
            raise UsageError("--list goes without other options")
        _print_meters()
        return
    if power_log is None or frames is None:
        raise UsageError("give --power-log FILE and --frames N, or --list")
    from squeezedet.benchmark.meter import read_log

    reading = read_log(power_log, frames, threshold)
    if out != STDOUT:
        print(_describe(reading))
    write_json(out, reading.record())


def _print_meters() -> None:
    from squeezedet.benchmark.meter import choose, probe

    meters = [(name, "yes" if works else "no", sentence) for name, (works, sentence) in probe().items()]
    table([("meter", "works", ""), *meters], left=(0, 1, 2))
    print("\nchosen for a network")
    for device in ("cpu", "cuda"):
        print(f"  on {device}: {choose(device=device).why}")


def _describe(reading: EnergyReading) -> str:
    rows = [
        ("source", reading.source),
        ("method", reading.how),
        ("power", f"{reading.power_w:.2f} W, {reading.idle}"),
        ("speed", f"{reading.frames_per_s:.2f} frames/s"),
        ("energy", f"{reading.energy_per_frame_j:.4g} J per frame, {reading.idle}"),
    ]
    if reading.idle_w is not None:
        less = reading.less_idle(reading.idle_w)
        rows.append(("less idle", f"{less.energy_per_frame_j:.4g} J per frame, {less.idle}"))
    return align(rows, left=(0, 1))


def tables() -> None:
    """Print the tables that need no model.

    Table 1 of the paper (RPN, ConvDet and FcDet) and Table 1 of its supplement (SqueezeDet layer
    by layer) are computed from the networks; Tables 2 and 3 are quoted: for rows of models
    of ours beside them see `squeezedet papers compare`.

    Examples:
      squeezedet papers tables
    """
    from squeezedet.cli.costs import profile
    from squeezedet.papers import supplement
    from squeezedet.papers.compare import ROWS

    layers = supplement.table1()
    print(supplement.DETECTION_TITLE)
    table(supplement.detection_table(layers), left=supplement.DETECTION_LEFT)
    print(supplement.detection_note(layers))
    profile("squeezedet", geometry="paper")
    print()
    _print_tables(ROWS)


def _print_tables(rows: Sequence[ComparisonRow]) -> None:
    from squeezedet.papers import compare as cells

    accuracy, cost, sources = cells.accuracy_table(rows), cells.cost_table(rows), cells.source_table(rows)
    print(cells.ACCURACY_TITLE)
    table(accuracy, left=(0, len(accuracy[0]) - 1))
    print(f"\n{cells.COST_TITLE}")
    table(cost, left=(0, len(cost[0]) - 1))
    if len(sources) > 1:
        print(f"\n{cells.SOURCES_TITLE}")
        table(sources, left=(0, 1, 2))
    if len(sources) <= len(rows):
        print(f"\n{cells.QUOTED_NOTE}")


papers = (compare, energy, tables)


def classify(
    sources: Annotated[
        list[str],
        Argument(
            metavar="SOURCE",
            help="Image, folder, quoted pattern, http(s) address, or - for standard input.",
            show_default=False,
        ),
    ],
    *,
    weights: Annotated[Path, Option(help="Of a SqueezeNet: .bundle, .net, .onnx, .caffemodel, .safetensors, .npz.")],
    network: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Such as squeezenet-1.0 [default: what the shapes in the file say; "
            "squeezenet-1.0-simple has those of squeezenet-1.0 and must be named].",
        ),
    ] = None,
    top: Annotated[int, Option(min=1, help="How many classes of each image.")] = 5,
    output: Annotated[
        str | None, Option("--out", "-o", metavar="FILE|-", help="Write records as JSON; - prints them.")
    ] = None,
) -> None:
    """Say what images show, with a SqueezeNet and its published weights.

    Prints the likeliest of ImageNet's 1000 classes of each image with their probabilities.
    An image that cannot be used is named on standard error and the others go on; the exit
    code is then 3.

    Examples:
      squeezedet classify photo.jpg --weights compressed_SqueezeNet.net
      squeezedet classify photos --weights squeezenet_v1_1.onnx --top 1
    """
    from squeezedet.media.sources import STDIN, STDIN_IN_WORDS, Failure, frames, locate
    from squeezedet.models.registry import config_of, find
    from squeezedet.models.squeezenet import classify as classes_of
    from squeezedet.models.squeezenet import from_weights

    located = locate(sources)
    check_target(output)
    if network and find(network).task != "classify":
        raise UsageError(f"{network} finds objects and classifies nothing: see squeezedet detect")
    net = from_weights(weights, config_of(network) if network else None)
    records, failed = [], False
    for item in frames(located):
        if isinstance(item, Failure):
            failed = True
            say(item.error)
            continue
        for note in item.notes:
            say(note)
        height, width = item.pixels.shape[:2]
        found = classes_of(net, item.pixels, top)
        classes = [{"name": name, "probability": round(p, 6)} for name, p in found]
        records.append({"image": item.name, "width": width, "height": height, "classes": classes})
        if output == STDOUT:
            continue
        print(f"{STDIN_IN_WORDS if item.name == STDIN else item.name}  {width}x{height}")
        print(align([(name, f"{p:.3f}") for name, p in found], indent="  "))
    write_json(output, records)
    if failed:
        raise Exit(DataError.exit_code)
