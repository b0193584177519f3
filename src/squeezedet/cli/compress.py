"""``squeezedet compress``: from a checkpoint to a file of a tenth of its size."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squeezedet.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from squeezedet.compression.encode import CompressionSource
    from squeezedet.compression.pipeline import FinetuneData, Stage
    from squeezedet.compression.sensitivity import Sensitivity

EXAMPLES = """\
  squeezedet compress runs/a/best.safetensors -o roads.sqz --finetune roads --steps 3000
  squeezedet compress a.bundle -o a.sqz --density auto:0.25 --bits 5 --finetune roads
  squeezedet compress squeezenet_v1_1.onnx -o net.sqz --density density.toml --bits 8
  squeezedet detect street.jpg --model roads.sqz
"""

AUTO, AUTO_TOTAL = "auto", 0.33
WHOLE_BITS = 8
"""Of a layer that a file of bits does not name."""


class StartName(StrEnum):
    """How k-means begins."""

    linear = "linear"
    density = "density"
    random = "random"


def compress(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|BUNDLE|NAME",
            help="A checkpoint, a bundle, a .sqz, a shipped model, or the weights of a SqueezeNet.",
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("--out", "-o", metavar="MODEL.sqz", help="To write.")],
    density: Annotated[
        str,
        typer.Option(
            metavar="D|FILE|auto[:D]",
            help="Share of the weights that stays: one number for all layers but the first, a "
            "TOML or JSON file with one for each, or found by a scan for a total of D.",
        ),
    ] = "0.33",
    bits: Annotated[
        str, typer.Option(metavar="N|FILE", help="Of a code, 1 to 10; or a file, as for --density.")
    ] = "6",
    start: Annotated[StartName, typer.Option(help="How k-means begins.")] = StartName.linear,
    finetune: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Labelled images to retrain on, and to judge by."),
    ] = None,
    train_split: Annotated[str, typer.Option(help="Split to learn from.")] = "train",
    val_split: Annotated[str, typer.Option(help="Split to judge by; 'none' for none.")] = "val",
    steps: Annotated[
        int, typer.Option(min=1, help="Of retraining; the centroids get a quarter more.")
    ] = 2000,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML: fields of [recipe] to override, as for train."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For checkpoints [default: beside the output]."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue from the checkpoints.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a page with tables and plots.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model [default: the output's].")] = None,
    licence: Annotated[
        str | None,
        typer.Option(help="Of the weights, for the card [default: what the source says of it]."),
    ] = None,
    data_note: Annotated[
        str | None,
        typer.Option(help="What they were trained on, for the card [default: as above]."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Make a model small: prune, share weights, encode (Deep Compression).

    Each stage prints size, ratio, density and entropy, and with --finetune the AP on the
    validation images. Without --finetune nothing is retrained: gentle settings only. The file
    detects like a bundle, at the same speed: what shrinks is disk and download.
    """
    try:
        from squeezedet.compression.encode import open_source
        from squeezedet.compression.pipeline import Pipeline, Settings
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "squeezedet":
            raise
        raise MissingExtraError("compression", "train") from error
    from squeezedet.coding.container import SUFFIX
    from squeezedet.compression import report as page
    from squeezedet.files import write_atomic
    from squeezedet.training.loop import use_threads

    if output.suffix != SUFFIX:
        raise UsageError(f"`out`: {output} must end in {SUFFIX}, which says how to read it")
    use_threads(threads)
    opened = open_source(source)
    opened = replace(opened, licence=licence or opened.licence, data=data_note or opened.data)
    lessons = None
    if finetune:
        folder = work or output.with_suffix(".work")
        lessons = _lessons(
            opened, finetune, (train_split, val_split), steps, config, folder, resume
        )
    elif config or resume or work:
        raise UsageError("--config, --work and --resume are for retraining: give --finetune")
    shares, scan = _densities(density, opened, lessons, quiet)
    settings = Settings(density=shares, bits=_bits(bits, opened), start=start.value)
    say = None if quiet else _say
    done = Pipeline(opened, settings, lessons, say, quiet).run(name or output.stem)
    write_atomic(output, done.encoded.content)
    if report:
        command = shlex.join(["squeezedet", *sys.argv[1:]])
        written = page.write(report, f"Compression of {opened.path.name}", command, done, scan)
        if not quiet:
            print(f"wrote {written}")
    if not quiet:
        print(f"wrote {output}: {output.stat().st_size:,} bytes")


def _lessons(
    source: CompressionSource,
    data: Path,
    splits: tuple[str, str],
    steps: int,
    config: Path | None,
    folder: Path,
    resume: bool,
) -> FinetuneData:
    """What is retrained on; everything that can be wrong with it is found now."""
    from squeezedet.compression.pipeline import finetune_data
    from squeezedet.data.dataset import class_map_for, read_dataset
    from squeezedet.training.config_file import ConfigFile, read_config
    from squeezedet.training.validate import check_protocol

    dataset = read_dataset(data)
    train, val = splits
    file = read_config(config) if config else ConfigFile()
    lessons = finetune_data(
        source,
        dataset.split(train),
        () if val == "none" else dataset.split(val),
        class_map_for(dataset),
        steps=steps,
        folder=folder,
        resume=resume,
        file=file,
    )
    check_protocol(lessons.recipe.protocol)
    return lessons


def _densities(
    text: str, source: CompressionSource, lessons: FinetuneData | None, quiet: bool
) -> tuple[dict[str, float], Sensitivity | None]:
    """The share of each layer that stays, and the scan that it comes from."""
    from squeezedet.compression.prune import kernels, read_numbers, uniform

    layers = list(kernels(source.network))
    auto, _, total = text.partition(":")
    if auto == AUTO:
        from squeezedet.compression.pipeline import scan_for
        from squeezedet.compression.sensitivity import choose_densities

        budget = _share(total, "--density auto") if total else AUTO_TOTAL
        if lessons is None:
            raise UsageError("--density auto looks at labelled images: give --finetune")
        if not quiet:
            print(f"trying densities in {len(layers)} layers", file=sys.stderr)
        found = scan_for(source, lessons)
        return choose_densities(found, budget), found
    if _is_number(text):
        return uniform(source.network, _share(text, "--density")), None
    shares = read_numbers(Path(text), layers, 0, 1)
    return {name: share for name, share in shares.items() if share < 1}, None


def _share(text: str, option: str) -> float:
    value = float(text) if _is_number(text) else 0.0
    if not 0 < value <= 1:
        raise UsageError(f"{option}: {text!r} is no number above 0 to 1")
    return value


def _bits(text: str, source: CompressionSource) -> dict[str, int]:
    from squeezedet.compression.prune import kernels, read_numbers
    from squeezedet.compression.share import MAX_BITS

    layers = list(kernels(source.network))
    if not _is_number(text):
        found = read_numbers(Path(text), layers, 0, MAX_BITS)
        if any(value != int(value) for value in found.values()):
            raise UsageError(f"{text}: bits are whole numbers")
        return dict.fromkeys(layers, WHOLE_BITS) | {k: int(v) for k, v in found.items()}
    if not text.isdigit() or not 1 <= int(text) <= MAX_BITS:
        raise UsageError(f"--bits: {text!r} is no whole number from 1 to {MAX_BITS}")
    return dict.fromkeys(layers, int(text))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _say(stage: Stage, first: Stage) -> None:
    """One line for a stage; the first comes with a heading."""
    from squeezedet.compression.pipeline import heading, summary

    def line(cells: list[str]) -> str:
        return f"{cells[0]:18}" + "".join(f"{cell:>14}" for cell in cells[1:])

    if stage is first:
        print(line(heading(first)))
    print(line(summary(stage, first)), flush=True)
