"""``squeezedet train``: from labelled images to a bundle."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from squeezedet.data.sample import ClassMap
    from squeezedet.detectors.squeezedet import SqueezeDetConfig
    from squeezedet.runtime.preprocess import InputRule
    from squeezedet.training.recipe import Recipe

EXAMPLES = """\
  squeezedet train --data roads --init squeezenet_v1_1.onnx --out runs/roads
  squeezedet train --data roads --out runs/roads --resume
  squeezedet train --data kitti --init squeezenet_v1_1.onnx --recipe paper --steps 87000
"""


class RecipeName(StrEnum):
    """Which set of defaults the options start from."""

    default = "default"
    paper = "paper"


class OptimizerName(StrEnum):
    """The optimisers."""

    adamw = "adamw"
    sgd = "sgd"


def train(
    *,
    data: Annotated[Path, typer.Option(help="KITTI folder: image_2, label_2, and a split.")],
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/squeezedet"),
    init: Annotated[
        Path | None,
        typer.Option(help="ONNX file of SqueezeNet v1.1 to start from [default: random weights]."),
    ] = None,
    train_split: Annotated[str, typer.Option(help="Split to learn from.")] = "train",
    val_split: Annotated[str, typer.Option(help="Split to judge by; 'none' for none.")] = "val",
    recipe: Annotated[
        RecipeName, typer.Option(help="'paper': its geometry, loss, drift and SGD schedule.")
    ] = RecipeName.default,
    size: Annotated[
        str | None, typer.Option(help="WxH that detection uses: 1248x384; the paper's is fixed.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1)] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a step.")] = None,
    optimizer: Annotated[OptimizerName | None, typer.Option()] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0)] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that prepare images.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
    validate_every: Annotated[int | None, typer.Option(min=1, help="In steps.")] = None,
    checkpoint_every: Annotated[
        float | None, typer.Option(min=0, help="Seconds between checkpoints.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out, exactly.")] = False,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "squeezedet",
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "",
    data_note: Annotated[str, typer.Option(help="What the data is, for the card.")] = "",
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """Train a SqueezeDet on a KITTI folder and write a bundle that detects.

    The run folder gets metrics.csv, last.safetensors (every few minutes, and on Ctrl-C),
    best.safetensors and, at the end, NAME.bundle.
    """
    from squeezedet.errors import MissingExtraError

    try:
        from squeezedet.training import loop
    except ImportError as error:
        raise MissingExtraError("training", "train") from error
    from squeezedet.data.kitti import read_folder
    from squeezedet.export.bundle import bundle_checkpoint
    from squeezedet.runtime import bundle
    from squeezedet.training.start import new_detector

    changes = {
        "steps": steps,
        "batch": batch,
        "optimizer": str(optimizer) if optimizer else None,
        "learning_rate": learning_rate,
        "seed": seed,
        "workers": workers,
        "validate_every": validate_every,
        "checkpoint_every_s": checkpoint_every,
    }
    config, chosen, class_map = _defaults(
        recipe, {k: v for k, v in changes.items() if v is not None}
    )
    run = loop.Run(
        folder=out,
        train=read_folder(data, train_split),
        val=() if val_split == "none" else read_folder(data, val_split),
        class_map=class_map,
        input=_input_rule(size, recipe),
        recipe=chosen,
        quiet=quiet,
    )
    loop.prepare(threads)
    detector = new_detector(config, None if resume else init, chosen.seed)
    best = loop.train(detector, run, resume)
    target = out / f"{name}{bundle.SUFFIX}"
    note = data_note or f"{data}, split {train_split}: {len(run.train)} images"
    bundle.write(target, bundle_checkpoint(best, name, licence=licence or "not stated", data=note))
    loop.say(run, f"wrote {target}; try: squeezedet detect IMAGE --model {target}")


def _defaults(
    name: RecipeName, changes: dict[str, object]
) -> tuple[SqueezeDetConfig, Recipe, ClassMap]:
    from dataclasses import replace

    from squeezedet.data.sample import KITTI_DEFAULT, KITTI_PAPER
    from squeezedet.detectors import squeezedet
    from squeezedet.training import recipe

    if name is RecipeName.paper:
        chosen = replace(recipe.PAPER, **changes)  # type: ignore[arg-type]
        return squeezedet.PAPER, chosen, KITTI_PAPER
    chosen = replace(recipe.Recipe(), **changes)  # type: ignore[arg-type]
    return squeezedet.SqueezeDetConfig(), chosen, KITTI_DEFAULT


def _input_rule(size: str | None, name: RecipeName) -> InputRule:
    from squeezedet.errors import UsageError
    from squeezedet.runtime.preprocess import STRIDE, InputRule

    if name is RecipeName.paper:
        if size:
            raise UsageError("--size: the paper's geometry is 1242x375")
        return InputRule(1242, 375, fixed=True)
    try:
        width, height = (int(side) for side in (size or "1248x384").lower().split("x"))
    except ValueError:
        raise UsageError(f"--size: {size!r} is not WIDTHxHEIGHT, for example 1248x384") from None
    if width < STRIDE or height < STRIDE or width % STRIDE or height % STRIDE:
        raise UsageError(f"--size: {size} must have sides that are multiples of {STRIDE}")
    return InputRule(width, height)
