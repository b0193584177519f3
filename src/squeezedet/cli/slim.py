"""``squeezedet slim``: a narrower, faster network from the weights of a wider one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezedet.cli import options
from squeezedet.cli.output import table
from squeezedet.errors import UsageError

EXAMPLES = """\
  squeezedet slim wide.bundle -o s.safetensors --data roads --speed-up 2
  squeezedet slim runs/a/best.safetensors -o s.safetensors --data roads --int8
  squeezedet train --data roads --init s.safetensors --teacher wide.bundle
"""


def slim(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|BUNDLE|NAME", help="A SqueezeDet: a checkpoint, a bundle or a shipped model."
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("--out", "-o", metavar="SLIM.safetensors", help="To write.")],
    data: Annotated[Path, typer.Option(help="Labelled images: they tell which channels matter.")],
    speed_up: Annotated[
        float, typer.Option(min=1.0, max=20.0, help="Wanted latency of the network, as a ratio.")
    ] = 2.0,
    int8: Annotated[bool, typer.Option("--int8", help="Measure the layers quantized to int8.")] = False,
    size: Annotated[str | None, typer.Option(help="WxH to measure at [default: the model's].")] = None,
    split: Annotated[str, typer.Option(help="Split of --data.")] = "train",
    batches: Annotated[int, typer.Option(min=1, help="Of eight images, to weigh channels by.")] = 40,
    threads: options.Threads = None,
) -> None:
    """Take away the channels that matter least for the time that they take.

    The time of each layer is measured on this machine, at four widths; what a channel matters is
    measured on labelled images. The result wants training: see the last example.
    """
    from squeezedet.compression.slim import slim_network
    from squeezedet.data.dataset import class_map_for, read_dataset
    from squeezedet.text import parse_size
    from squeezedet.training.checkpoint import load_detector
    from squeezedet.training.loop import use_threads

    if output.suffix != ".safetensors":
        raise UsageError(f"`out`: {output} must end in .safetensors: it is a checkpoint")
    use_threads(threads)
    dataset = read_dataset(data)
    made = slim_network(
        load_detector(source),
        dataset.split(split),
        class_map_for(dataset),
        speed_up=speed_up,
        int8=int8,
        size=parse_size(size, "--size") if size else None,
        batches=batches,
        threads=threads,
    )
    made.write(output)
    rows = [("layer", "channels", "ms before", "ms after, predicted")]
    for row in made.rows:
        channels = f"{row.kept} of {row.channels}" if row.channels else ""
        rows.append((row.name, channels, f"{row.ms:.2f}", f"{row.predicted_ms:.2f}"))
    table([*rows, ("all", "", f"{made.before_ms:.2f}", f"{made.predicted_ms:.2f}")])
    print(f"wrote {output}: {made.parameters:,} parameters; train it with --init {output}")
