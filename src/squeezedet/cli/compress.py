"""``squeezedet compress`` and ``slim``: a file of a tenth of its size, and a network of half the time."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from squeezedet.cli import options
from squeezedet.cli.options import say, table
from squeezedet.errors import UsageError
from squeezedet.files import check_no_folder

if TYPE_CHECKING:
    from squeezedet.compression.pipeline import Stage


def compress(
    model: Annotated[
        str,
        Argument(
            metavar="CHECKPOINT|BUNDLE|NAME",
            help="A checkpoint, a bundle, a shipped model, or the weights of a SqueezeNet.",
        ),
    ],
    *,
    out: Annotated[Path, Option("--out", "-o", metavar="MODEL.bundle", help="To write.")],
    density: Annotated[
        str | None,
        Option(
            metavar="D|FILE|auto[:D]",
            help="Share of the weights that stays: one number for all layers but the first, a "
            "TOML file with one for each, or found by a scan for a total of D [default: "
            "0.33 with --finetune, else 1].",
        ),
    ] = None,
    bits: Annotated[str, Option(metavar="N|FILE", help="Of a code, 1 to 10; or a file, as for --density.")] = "6",
    finetune: Annotated[Path | None, Option(metavar="DATA", help="Labelled images to retrain and evaluate on.")] = None,
    train_split: options.TrainSplit = "train",
    val_split: Annotated[str, Option(help="Split to evaluate on; 'none' for none.")] = "val",
    classes: options.Classes = None,
    mapping: options.Map = None,
    steps: Annotated[int, Option(min=1, help="Of retraining; the centroids get a quarter more.")] = 2000,
    config: Annotated[Path | None, Option(metavar="FILE", help="TOML: fields of [recipe], as for train.")] = None,
    work: Annotated[Path | None, Option(metavar="DIR", help="For checkpoints [default: beside the output].")] = None,
    resume: Annotated[bool, Option(help="Continue from the checkpoints.")] = False,
    report: Annotated[Path | None, Option(metavar="DIR", help="Write a page with tables and charts.")] = None,
    name: Annotated[str | None, Option(help="Of the model [default: the output's].")] = None,
    licence: Annotated[str | None, Option(help="Of the weights, for the card [default: the source's].")] = None,
    data_note: Annotated[str | None, Option(help="What they were trained on [default: as the source says].")] = None,
    device: options.Device = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Make a model small: prune, share weights, encode (Deep Compression).

    Each stage prints size, ratio, density and entropy, and with --finetune the AP on the
    validation images. Without --finetune nothing is retrained, so nothing is pruned by default. The
    file detects like a bundle, at the same speed: what shrinks is disk and download.

    Examples:
      squeezedet compress runs/a/a.bundle -o small.bundle --finetune roads --steps 3000
      squeezedet compress a.bundle -o b.bundle --density auto:0.25 --bits 5 --finetune roads
      squeezedet compress squeezenet_v1_1.onnx -o net.bundle --density density.toml --bits 8
      squeezedet detect street.jpg --model small.bundle
    """
    given = options.given(locals(), without=("report", "threads"))
    from squeezedet.compression import pipeline
    from squeezedet.compression.report import write_report
    from squeezedet.training.loop import use_threads

    use_threads(threads)
    done = pipeline.compress(**given, on_stage=None if quiet else _print_stage)
    if report:
        page = write_report(report, done, shlex.join(["squeezedet", *sys.argv[1:]]))
        if not quiet:
            print(f"wrote {page}")
    if done.warning:
        say(f"warning: {done.warning.replace('`finetune`', '--finetune')}")
    if not quiet:
        print(f"wrote {out}: {out.stat().st_size:,} bytes")


def _print_stage(stage: Stage, first: Stage) -> None:
    """One line for a stage; the first comes with a heading."""
    from squeezedet.compression.report import heading, summary

    titles = heading(first)

    def line(cells: list[str]) -> str:
        others = zip(cells[1:], titles[1:], strict=True)
        return f"{cells[0]:14}" + "".join(f"{cell:>{max(9, len(title) + 2)}}" for cell, title in others)

    if stage is first:
        print(line(titles))
    print(line(summary(stage, first)), flush=True)


def slim(
    source: Annotated[str, Argument(metavar="CHECKPOINT|BUNDLE", help="A SqueezeDet.")],
    *,
    out: Annotated[Path, Option("--out", "-o", metavar="SLIM.safetensors", help="To write.")],
    data: Annotated[Path, Option(help="Labelled images: they tell which channels matter.")],
    speed_up: Annotated[float, Option(min=1.0, max=20.0, help="Wanted latency of the network, as a ratio.")] = 2.0,
    int8: Annotated[bool, Option("--int8", help="Measure the layers quantized to int8.")] = False,
    size: Annotated[str | None, Option(help="WxH to measure at [default: the model's].")] = None,
    split: Annotated[str, Option(help="Split of --data.")] = "train",
    batches: Annotated[int, Option(min=1, help="Of eight images, to weigh channels by.")] = 40,
    threads: options.Threads = None,
) -> None:
    """Take away the channels that matter least for the time that they take.

    The time of each layer is measured on this machine, at four widths; what a channel matters is
    measured on labelled images. The result wants training: see the last example.

    Examples:
      squeezedet slim wide.bundle -o s.safetensors --data roads --speed-up 2
      squeezedet slim runs/a/best.safetensors -o s.safetensors --data roads --int8
      squeezedet train --data roads --init s.safetensors --teacher wide.bundle
    """
    given = options.given(locals(), without=("source", "out", "data", "split"))
    from squeezedet.compression.slim import slim_network
    from squeezedet.data.dataset import class_map_for, read_dataset
    from squeezedet.training.checkpoint import load_detector
    from squeezedet.training.loop import use_threads

    if out.suffix != ".safetensors":
        raise UsageError(f"`out`: {out} must end in .safetensors: it is a checkpoint")
    check_no_folder(out)
    use_threads(threads)
    dataset = read_dataset(data)
    made = slim_network(load_detector(source), dataset.split(split), class_map_for(dataset), **given)
    made.write(out)
    rows = [("layer", "channels", "ms before", "ms after, predicted")]
    for row in made.rows:
        channels = f"{row.kept} of {row.channels}" if row.channels else ""
        rows.append((row.name, channels, f"{row.ms:.2f}", f"{row.predicted_ms:.2f}"))
    table([*rows, ("all", "", f"{made.before_ms:.2f}", f"{made.predicted_ms:.2f}")])
    print(f"wrote {out}: {made.parameters:,} parameters; train it with --init {out}")
