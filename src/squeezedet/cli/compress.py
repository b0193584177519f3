"""``squeezedet compress``: from a checkpoint to a file of a tenth of its size."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squeezedet.cli import options
from squeezedet.cli.output import say

if TYPE_CHECKING:
    from squeezedet.compression.pipeline import Stage

EXAMPLES = """\
  squeezedet compress runs/a/a.bundle -o small.bundle --finetune roads --steps 3000
  squeezedet compress a.bundle -o b.bundle --density auto:0.25 --bits 5 --finetune roads
  squeezedet compress squeezenet_v1_1.onnx -o net.bundle --density density.toml --bits 8
  squeezedet detect street.jpg --model small.bundle
"""


def compress(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|BUNDLE|NAME",
            help="A checkpoint, a bundle, a shipped model, or the weights of a SqueezeNet.",
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("--out", "-o", metavar="MODEL.bundle", help="To write.")],
    density: Annotated[
        str | None,
        typer.Option(
            metavar="D|FILE|auto[:D]",
            help="Share of the weights that stays: one number for all layers but the first, a "
            "TOML file with one for each, or found by a scan for a total of D [default: "
            "0.33 with --finetune, else 1].",
        ),
    ] = None,
    bits: Annotated[str, typer.Option(metavar="N|FILE", help="Of a code, 1 to 10; or a file, as for --density.")] = "6",
    finetune: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Labelled images to retrain on, and to evaluate on.")
    ] = None,
    train_split: Annotated[str, typer.Option(help="Split to learn from.")] = "train",
    val_split: Annotated[str, typer.Option(help="Split to evaluate on; 'none' for none.")] = "val",
    classes: options.Classes = None,
    mapping: options.Map = None,
    steps: Annotated[int, typer.Option(min=1, help="Of retraining; the centroids get a quarter more.")] = 2000,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML: fields of [recipe] to override, as for train.")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For checkpoints [default: beside the output].")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue from the checkpoints.")] = False,
    report: options.Report = None,
    name: Annotated[str | None, typer.Option(help="Of the model [default: the output's].")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the weights, for the card [default: what the source says of it].")
    ] = None,
    data_note: Annotated[
        str | None, typer.Option(help="What they were trained on, for the card [default: as above].")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1, ... or mps.")] = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Make a model small: prune, share weights, encode (Deep Compression).

    Each stage prints size, ratio, density and entropy, and with --finetune the AP on the
    validation images. Without --finetune nothing is retrained, so nothing is pruned by default. The
    file detects like a bundle, at the same speed: what shrinks is disk and download.
    """
    from squeezedet.compression import pipeline
    from squeezedet.compression.report import write_report
    from squeezedet.training.loop import use_threads

    use_threads(threads)
    done = pipeline.compress(
        source,
        output,
        density=density,
        bits=bits,
        finetune=finetune,
        train_split=train_split,
        val_split=val_split,
        classes=options.names_of(classes),
        mapping=options.mapping_of(mapping),
        steps=steps,
        config=config,
        work=work,
        resume=resume,
        name=name,
        licence=licence,
        data_note=data_note,
        device=device,
        quiet=quiet,
        on_stage=None if quiet else _print_stage,
    )
    if report:
        page = write_report(report, done, shlex.join(["squeezedet", *sys.argv[1:]]))
        if not quiet:
            print(f"wrote {page}")
    if done.warning:
        say(f"warning: {done.warning.replace('`finetune`', '--finetune')}")
    if not quiet:
        print(f"wrote {output}: {output.stat().st_size:,} bytes")


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
