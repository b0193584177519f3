"""``squeezedet train``: from labelled images to a bundle."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\
  squeezedet train --data roads --init squeezenet_v1_1.onnx --out runs/roads
  squeezedet train --data roads --out runs/roads --resume
  squeezedet train --data signs/data.yaml --network tiny-ssd --out runs/signs
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
    data: Annotated[Path, typer.Option(help="KITTI, VOC, COCO or YOLO data: folder or file.")],
    network: Annotated[
        str, typer.Option(help="Which detector: see `squeezedet models --all`.")
    ] = "squeezedet",
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/squeezedet"),
    init: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Start from SqueezeNet v1.1 (ONNX), or from a bundle or shipped model "
            "[default: random weights].",
        ),
    ] = None,
    train_split: Annotated[str, typer.Option(help="Split to learn from.")] = "train",
    val_split: Annotated[str, typer.Option(help="Split to judge by; 'none' for none.")] = "val",
    recipe: Annotated[
        RecipeName, typer.Option(help="'paper': its geometry, loss, drift and SGD schedule.")
    ] = RecipeName.default,
    size: Annotated[
        str | None, typer.Option(help="WxH that detection uses [default: the network's].")
    ] = None,
    anchors: Annotated[
        int,
        typer.Option(min=0, max=64, help="Find so many anchor shapes in the data; 0: built-in."),
    ] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps [default: 6000].")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images a step [default: 8; paper 20].")
    ] = None,
    optimizer: Annotated[
        OptimizerName | None,
        typer.Option(help="With its own rate, decay and clip [default: adamw; paper sgd]."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="[default: 0.0005 adamw; 0.01 sgd].")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Of everything random [default: 0].")
    ] = None,
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Train a detector on labelled images and write a bundle that detects.

    Classes and output channels follow from the data. The run folder gets metrics.csv,
    last.safetensors (every few minutes, and on Ctrl-C), best.safetensors and, at the end,
    NAME.bundle. --resume takes all options from the run.
    """
    from squeezedet.errors import MissingExtraError, UsageError

    try:
        from squeezedet.training import loop, plan
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "squeezedet":
            raise
        raise MissingExtraError("training", "train") from error
    from squeezedet.data.dataset import class_map_for, read_dataset
    from squeezedet.export.bundle import bundle_checkpoint
    from squeezedet.runtime import bundle
    from squeezedet.training.recipe import with_optimizer

    if "/" in name or not name:
        raise UsageError(f"--name: {name!r} is no name for a file")
    wanted = plan.parse_size(size) if size else None
    changes = {
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "seed": seed,
        "workers": workers,
        "validate_every": validate_every,
        "checkpoint_every_s": checkpoint_every,
    }
    given = {key: value for key, value in changes.items() if value is not None}
    dataset = read_dataset(data)
    samples = dataset.split(train_split)
    if resume:
        planned = plan.continued(out)
    else:
        planned = plan.new(
            network,
            class_map_for(dataset),
            samples,
            paper=recipe is RecipeName.paper,
            size=wanted,
            anchors=anchors,
            init=init,
            seed=seed or 0,
        )
    chosen = planned.recipe
    if optimizer and optimizer.value != chosen.optimizer:
        chosen = with_optimizer(chosen, optimizer.value)
    run = loop.Run(
        folder=out,
        train=samples,
        val=() if val_split == "none" else dataset.split(val_split),
        class_map=planned.class_map,
        recipe=replace(chosen, **given),  # type: ignore[arg-type]
        quiet=quiet,
    )
    loop.use_threads(threads)
    best = loop.train(planned.detector, run, resume)
    target = out / f"{name}{bundle.SUFFIX}"
    note = data_note or f"{data}, split {train_split}: {len(run.train)} images"
    made = bundle_checkpoint(
        best, name, licence=licence or "not stated", data=note, calibrate_on=run.val
    )
    bundle.write(target, made)
    if not quiet:
        print(f"wrote {target}; try: squeezedet detect IMAGE --model {target}")
