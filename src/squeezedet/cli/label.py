"""``squeezedet label``: very many images and videos in, a set of labels out."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Annotated, Literal

import typer

from squeezedet.cli import options
from squeezedet.cli.output import say
from squeezedet.errors import DataError
from squeezedet.runtime import DEFAULT_MODEL
from squeezedet.text import counted

EXAMPLES = """\
  squeezedet label photos drive.mp4 --out labels
  squeezedet label s3://bucket/fleet --out s3://bucket/labels --ray local
  squeezedet label 'trips/*/*.jpg' --out labels --ray head-node:6379 --resume
  squeezedet label inputs.parquet --out labels --score 0.1 --format coco
"""


def label(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Folder with all its folders, quoted pattern, image, video, URL of a store (s3://...), or a Parquet "
            "file with a column path.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DATASET", help="Folder or URL for the labels.")],
    model: options.Model = DEFAULT_MODEL,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score to keep [default: the model's own].")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="local|HOST:PORT|auto", help="Use many processes: here, or of a Ray cluster.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of Ray, each with a core or GPU [default: all].")
    ] = None,
    engine: options.Engine = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")] = False,
    layout: Annotated[
        Literal["coco", "kitti"] | None, typer.Option("--format", help="Write the labels in this layout, too.")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Detect in millions of images and videos, and write the boxes as Parquet.

    Without --ray one process does it, on one core. A job that was stopped, in whatever way, goes on with
    --resume. What cannot be read is a row with its error; the exit code is 3 only if nothing could be.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from squeezedet.fleet.label import label as label_all

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("parts"), TimeRemainingColumn())
    bar = (
        Progress(*columns, console=Console(stderr=True), transient=True) if sys.stderr.isatty() and not quiet else None
    )
    task = bar.add_task("", total=None) if bar else None

    def report(done: int, parts: int) -> None:
        if bar is not None and task is not None:
            bar.update(task, total=parts, completed=done)

    with bar or nullcontext():
        done = label_all(
            sources,
            out,
            model=model,
            score=score,
            engine=engine,
            ray=ray,
            workers=workers,
            resume=resume,
            layout=layout,
            report=report,
        )
    if not quiet:
        found = f"{counted(done.frames, 'frame')} of {counted(done.inputs, 'input')}"
        print(f"{out}: {found}, {counted(done.boxes, 'box', 'boxes')}")
    if done.errors:
        say(f"{counted(done.errors, 'input')} could not be read, or not to the end: see the column error")
    if done.errors and not done.frames:
        raise DataError(f"{out}: none of the inputs could be read")
