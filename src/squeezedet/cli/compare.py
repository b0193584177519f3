"""``squeezedet papers compare``: the paper's Tables 2 and 3, models of ours beside its rows."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from squeezedet.cli import options
from squeezedet.cli.options import RuleSet

EXAMPLES = """\
  squeezedet papers compare street
  squeezedet papers compare street small.bundle --data roads --split val --rules paper
  squeezedet papers compare *.bundle --engine openvino --format csv > models.csv
  squeezedet papers compare street --energy rapl --plots plots
"""


class Format(StrEnum):
    """What is printed."""

    text = "text"
    csv = "csv"
    json = "json"


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
    rules: options.Rules = RuleSet.paper,
    engine: options.Engine = None,
    threads: options.Threads = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds, by turns.")] = 50,
    energy: Annotated[str, typer.Option(metavar="METER", help="nvml, nvml-counter, rapl, none, or auto.")] = "auto",
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each model works for its joules.")] = 10.0,
    form: Annotated[Format, typer.Option("--format", help="What is printed.")] = Format.text,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw the paper's Fig. 6: speed.svg and size.svg.")
    ] = None,
) -> None:
    """Put models into the paper's Tables 2 and 3: AP, size, operations, speed, joules.

    The paper's own rows stand beside, marked as quoted: they are of other images and of a
    TITAN X. AP is the 11-point one, on --data by --rules, or else what the model's card says.
    """
    from squeezedet.files import make_folder
    from squeezedet.papers import compare as library
    from squeezedet.papers.tables import ROWS, as_csv, as_text, write_plots

    if plots:
        make_folder(plots)
    found = library.compare(
        models,
        data,
        split=split,
        rules=rules.value,
        engine=engine,
        threads=threads,
        rounds=rounds,
        energy=energy,
        seconds=seconds,
    )
    rows = [*found.rows, *ROWS]
    if form is Format.csv:
        print(as_csv(rows), end="")
    elif form is Format.json:
        print(json.dumps([row.record() for row in rows], indent=2))
    else:
        print(as_text(rows))
    written = write_plots(plots, rows) if plots else []
    for note in (*found.notes, *(f"plot: {path}" for path in written)):
        print(f"squeezedet: {note}", file=sys.stderr)
