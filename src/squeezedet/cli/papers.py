"""``squeezedet papers``: what reproduces the papers' tables and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from squeezedet.cli import options
from squeezedet.cli.output import STDOUT, say, table, write_json

if TYPE_CHECKING:
    from squeezedet.benchmark.meter import EnergyReading
    from squeezedet.papers.compare import ComparisonRow

COMPARE_EXAMPLES = """\
  squeezedet papers compare street
  squeezedet papers compare street small.bundle --data roads --split val --rules paper
  squeezedet papers compare *.bundle --engine openvino --format json > models.json
  squeezedet papers compare street --energy rapl --plots plots
"""


def compare(
    models: options.Models,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE", help="Find AP on these labelled images, of any layout [default: the card's AP]."
        ),
    ] = None,
    split: options.Split = None,
    rules: options.Rules = "paper",
    engine: options.Engine = None,
    threads: options.Threads = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds, by turns.")] = 50,
    energy: Annotated[str, typer.Option(metavar="METER", help="nvml, rapl, none, or auto.")] = "auto",
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each model works for its joules.")] = 10.0,
    form: Annotated[Literal["text", "json"], typer.Option("--format", help="What is printed.")] = "text",
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw the paper's Fig. 6: speed.svg and size.svg.")
    ] = None,
    trust_model: options.TrustModel = False,
) -> None:
    """Put models into the paper's Tables 2 and 3: AP, size, operations, speed, joules.

    The paper's own rows stand beside, marked as quoted: they are of other images and of a
    TITAN X. AP is the 11-point one, on --data by --rules, or else what the model's card says.
    """
    from squeezedet.files import make_folder, write_atomic
    from squeezedet.papers import compare as library

    if plots:
        make_folder(plots)
    measured, notes = library.compare(
        models,
        data,
        split=split,
        rules=rules,
        engine=engine,
        threads=threads,
        rounds=rounds,
        energy=energy,
        seconds=seconds,
        trust_model=trust_model,
    )
    rows = [*measured, *library.ROWS]
    if form == "json":
        print(json.dumps([row.record() for row in rows], indent=2))
    else:
        _print_tables(rows)
    if plots:
        for name, picture in library.draw_plots(rows).items():
            write_atomic(plots / f"{name}.svg", picture)
            notes.append(f"plot: {plots / name}.svg")
    for note in notes:
        say(note)


ENERGY_EXAMPLES = """\
  squeezedet papers energy --power-log power.csv --frames 3741
  squeezedet papers energy --power-log jetson.csv --frames 500 --threshold 5 -o -
  squeezedet papers energy --list
"""


def energy(
    *,
    power_log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recorded power: CSV with columns time_s,power_w.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, max=1_000_000_000, help="Frames processed in the log's working period.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="W", help="The least power that is work [default: 20, the paper's].")
    ] = None,
    out: options.JsonOut = None,
    list_meters: Annotated[bool, typer.Option("--list", help="Say which meters work on this machine.")] = False,
) -> None:
    """Joules per frame from a recorded power log, as the paper's supplement finds them.

    Samples of at least 20 W are the working period, the mean of its middle third is the power,
    and joules per frame = watts / frames per second. Idle power is not subtracted; the figure
    without it stands beside.
    """
    from squeezedet.errors import UsageError

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
    from squeezedet.text import align

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


TABLES_EXAMPLES = """\
  squeezedet papers tables
"""
EXAMPLES = f"{COMPARE_EXAMPLES}{ENERGY_EXAMPLES}{TABLES_EXAMPLES}"


def tables() -> None:
    """Print the tables that need no model.

    Table 1 of the paper (RPN, ConvDet and FcDet) and Table 1 of its supplement (SqueezeDet layer
    by layer) are computed from the networks; Tables 2 and 3 are quoted: for rows of models
    of ours beside them see `squeezedet papers compare`.
    """
    from squeezedet.cli.profile import profile
    from squeezedet.papers.compare import ROWS

    profile("squeezedet", geometry="paper", table1=True)
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


papers = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="The papers' tables and figures, with any models of ours beside.",
    epilog=f"\b\nExamples:\n{EXAMPLES}",
)
papers.command("compare", epilog=f"\b\nExamples:\n{COMPARE_EXAMPLES}")(compare)
papers.command("energy", epilog=f"\b\nExamples:\n{ENERGY_EXAMPLES}")(energy)
papers.command("tables", epilog=f"\b\nExamples:\n{TABLES_EXAMPLES}")(tables)
