"""``squeezedet mine``: from a set of labels to the frames that are worth a person's labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezedet.cli import options
from squeezedet.cli.output import say
from squeezedet.text import counted

EXAMPLES = """\
  squeezedet mine labels --count 200 --out to-label
  squeezedet mine labels --other labels-ssd --count 200 --out to-label
"""


def mine(
    labels: Annotated[str, typer.Argument(metavar="DATASET", help="Labels that squeezedet label made.")],
    *,
    count: Annotated[int, typer.Option(min=1, help="How many frames.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="New folder for list and contact sheets.")],
    other: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Labels of the same inputs by another model.")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Choose the frames of which the model is least sure, no two of them alike.

    Writes frames.csv (the frame of most doubt first) and contact sheets with the boxes. Doubt counts scores
    near one half, what a second model sees otherwise, and boxes that flicker in videos.
    """
    from squeezedet.fleet.mine import mine as choose

    chosen = choose(labels, count, out, other=other)
    if not quiet:
        print(f"{out}: {counted(len(chosen), 'frame')} in frames.csv")
    if len(chosen) < count:
        say(f"{counted(len(chosen), 'frame')} instead of {count:,}: the others are twins of these, or leave no doubt")
