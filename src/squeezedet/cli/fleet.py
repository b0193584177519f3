"""``squeezedet label`` and ``mine``: very many images in, a set of labels out, and of these the frames worth a look."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from squeezedet.cli import options
from squeezedet.cli.options import say
from squeezedet.errors import DataError
from squeezedet.runtime import DEFAULT_MODEL
from squeezedet.text import counted


def label(
    sources: Annotated[
        list[str],
        Argument(
            metavar="SOURCE",
            help="Folder with all its folders, quoted pattern, image, video, URL of a store (s3://...), or a Parquet "
            "file with a column path.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[str, Option("--out", "-o", metavar="DATASET", help="Folder or URL for the labels.")],
    model: options.Model = DEFAULT_MODEL,
    score: options.Score = None,
    ray: Annotated[
        str | None, Option(metavar="local|HOST:PORT|auto", help="Use many processes: here, or of a Ray cluster.")
    ] = None,
    workers: Annotated[int | None, Option(min=1, help="Ray's processes, a core or GPU each [default: all].")] = None,
    engine: options.Engine = None,
    resume: Annotated[bool, Option("--resume", help="Go on with what is in --out.")] = False,
    layout: Annotated[
        Literal["coco", "kitti"] | None, Option("--format", help="Write the labels in this layout, too.")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Detect in millions of images and videos, and write the boxes as Parquet.

    Without --ray one process does it, on one core. A job that was stopped, in whatever way, goes on with
    --resume. What cannot be read is a row with its error; the exit code is 3 only if nothing could be.

    Examples:
      squeezedet label photos drive.mp4 --out labels
      squeezedet label s3://bucket/fleet --out s3://bucket/labels --ray local
      squeezedet label 'trips/*/*.jpg' --out labels --ray head-node:6379 --resume
      squeezedet label inputs.parquet --out labels --score 0.1 --format coco
    """
    given = options.given(locals(), without=("quiet",))
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
        done = label_all(**given, report=report)
    if not quiet:
        found = f"{counted(done.frames, 'frame')} of {counted(done.inputs, 'input')}"
        print(f"{out}: {found}, {counted(done.boxes, 'box', 'boxes')}")
    if done.errors:
        say(f"{counted(done.errors, 'input')} could not be read, or not to the end: see the column error")
    if done.errors and not done.frames:
        raise DataError(f"{out}: none of the inputs could be read")


def mine(
    labels: Annotated[str, Argument(metavar="DATASET", help="Labels that squeezedet label made.")],
    *,
    count: Annotated[int, Option(min=1, help="How many frames.")],
    out: Annotated[Path, Option("--out", "-o", metavar="DIR", help="New folder for list and contact sheets.")],
    other: Annotated[str | None, Option(metavar="DATASET", help="Labels of the same inputs by another model.")] = None,
    quiet: options.Quiet = False,
) -> None:
    """Choose the frames of which the model is least sure, no two of them alike.

    Writes frames.csv (the frame of most doubt first) and contact sheets with the boxes. Doubt counts scores
    near one half, what a second model sees otherwise, and boxes that flicker in videos.

    Examples:
      squeezedet mine labels --count 200 --out to-label
      squeezedet mine labels --other labels-ssd --count 200 --out to-label
    """
    from squeezedet.fleet.mine import mine as choose

    chosen = choose(labels, count, out, other=other)
    if not quiet:
        print(f"{out}: {counted(len(chosen), 'frame')} in frames.csv")
    if len(chosen) < count:
        say(f"{counted(len(chosen), 'frame')} instead of {count:,}: the others are twins of these, or leave no doubt")
