"""``squeezedet train``: from labelled images to a bundle."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from squeezedet.cli.options import Protocol
from squeezedet.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from squeezedet.training.plan import Plan
    from squeezedet.training.recipe import Recipe
    from squeezedet.training.run_folder import Run

EXAMPLES = """\
  squeezedet train --data roads --init squeezenet_v1_1.onnx --out runs/roads
  squeezedet train --data roads --out runs/roads --resume
  squeezedet train --data roads --config recipe.toml --max-hours 8
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
        str, typer.Option(help="Which detector: see `squeezedet models --networks`.")
    ] = "squeezedet",
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/squeezedet"),
    init: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Start from a SqueezeNet (ONNX, Caffe, NumPy), darknet's .weights, a bundle, "
            "a shipped model or a checkpoint [default: random weights].",
        ),
    ] = None,
    train_split: Annotated[str, typer.Option(help="Split to learn from.")] = "train",
    val_split: Annotated[str, typer.Option(help="Split to judge by; 'none' for none.")] = "val",
    recipe: Annotated[
        RecipeName, typer.Option(help="'paper': its geometry, loss, drift and SGD schedule.")
    ] = RecipeName.default,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML: fields of [recipe] and [network] to override."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="WxH that detection uses [default: the network's].")
    ] = None,
    anchors: Annotated[
        int,
        typer.Option(min=0, max=64, help="Find so many anchor shapes in the data; 0: built-in."),
    ] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps [default: 6000].")] = None,
    epochs: Annotated[
        float | None, typer.Option(min=0.001, help="Steps, as passes over the images.")
    ] = None,
    max_hours: Annotated[
        float | None,
        typer.Option(min=0.001, help="As many steps as fit; end after that time, with a bundle."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Images a step, of each process [default: 8; paper 20]."),
    ] = None,
    optimizer: Annotated[
        OptimizerName | None,
        typer.Option(help="With its own rate, decay and clip [default: adamw; paper sgd]."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="[default: 0.0005 adamw; 0.01 sgd].")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME", help="Learn from this ConvDet model's answers, too (distillation)."
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="Do not train it; wildcards: 'backbone.fire*'."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Of everything random [default: 0].")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that prepare images.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
    validate_every: Annotated[int | None, typer.Option(min=1, help="In steps.")] = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(help="Whose rules validation follows [default: kitti for its classes, voc]."),
    ] = None,
    early_stop: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="End when the mean AP on training images has not risen in N validations.",
        ),
    ] = None,
    checkpoint_every: Annotated[
        float | None, typer.Option(min=0, help="Seconds between checkpoints.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out, exactly.")] = False,
    process_timeout: Annotated[
        float, typer.Option(min=1, help="Under torchrun: seconds to wait for another process.")
    ] = 600,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard's files, too.")] = False,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "squeezedet",
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "",
    data_note: Annotated[str, typer.Option(help="What the data is, for the card.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Train a detector on labelled images and write a bundle that detects.

    Classes and output channels follow from the data. The run folder gets config.toml,
    metrics.csv, index.html with curves and pictures, last.safetensors (every few minutes, and
    on Ctrl-C), best.safetensors and, at the end, NAME.bundle. --resume takes all options
    from the run.
    """
    try:
        from squeezedet.training import config_file, distributed, loop, plan
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "squeezedet":
            raise
        raise MissingExtraError("training", "train") from error
    from squeezedet.data.dataset import class_map_for, read_dataset
    from squeezedet.text import parse_size
    from squeezedet.training.run_folder import Run

    if "/" in name or not name:
        raise UsageError(f"--name: {name!r} is no name for a file")
    if resume and config:
        raise UsageError("--config: a run that goes on has its recipe; leave out --config")
    if steps and epochs:
        raise UsageError("give --steps or --epochs, not both")
    wanted = parse_size(size, "--size") if size else None
    file = config_file.read_config(config) if config else config_file.ConfigFile()
    changes = {
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "teacher": teacher,
        "frozen": tuple(freeze) if freeze else None,
        "seed": seed,
        "workers": workers,
        "validate_every": validate_every,
        "protocol": protocol and protocol.value,
        "early_stop": early_stop,
        "checkpoint_every_s": checkpoint_every,
    }
    dataset = read_dataset(data)
    samples = dataset.split(train_split)
    if resume:
        planned = plan.resume_plan(out)
    else:
        planned = plan.create_plan(
            network,
            class_map_for(dataset),
            samples,
            paper=recipe is RecipeName.paper,
            size=wanted,
            anchors=anchors,
            init=init,
            seed=seed,
            file=file,
        )
    run = Run(
        folder=out,
        train=samples,
        val=() if val_split == "none" else dataset.split(val_split),
        class_map=planned.class_map,
        recipe=_recipe(planned, optimizer, changes, epochs, len(samples)),
        quiet=quiet,
        max_seconds=3600 * max_hours if max_hours else math.inf,
        tensorboard=tensorboard,
        data=str(data),
        command=shlex.join(["squeezedet", *sys.argv[1:]]),
    )
    loop.use_threads(threads or planned.threads)
    _check(run, planned)
    with distributed.join(process_timeout) as processes:
        quiet = quiet or not processes.first
        if planned.start and not quiet:
            print(f"weights: {planned.start.describe()}", file=sys.stderr)
        best = loop.train(planned.detector, run, resume, processes)
    if not processes.first:
        return
    note = data_note or f"{data}, split {train_split}: {len(run.train)} images"
    target = _write_bundle(run, best, name, licence or "not stated", note)
    if not quiet:
        print(f"wrote {target}; try: squeezedet detect IMAGE --model {target}")


def _recipe(
    planned: Plan,
    optimizer: OptimizerName | None,
    changes: Mapping[str, Any],
    epochs: float | None,
    images: int,
) -> Recipe:
    """The recipe of the plan with what the options say."""
    from squeezedet.training.distributed import processes_started
    from squeezedet.training.recipe import shortened, with_optimizer

    chosen = planned.recipe
    if optimizer and optimizer.value != chosen.optimizer:
        chosen = with_optimizer(chosen, optimizer.value)
    given = {key: value for key, value in changes.items() if value is not None}
    chosen = replace(chosen, **given)
    batch = chosen.batch * processes_started()
    steps = max(1, round(epochs * images / batch)) if epochs else changes["steps"]
    return shortened(chosen, steps) if steps and planned.start else chosen


def _check(run: Run, planned: Plan) -> None:
    """What is not installed, or not there to be frozen, is said before anything is done."""
    from squeezedet.training.reporter import check_installed
    from squeezedet.training.trainer import freeze
    from squeezedet.training.validate import check_protocol

    freeze(planned.detector, run.recipe.frozen)
    check_protocol(run.recipe.protocol)
    if run.tensorboard:
        check_installed()


def _write_bundle(run: Run, best: Path, name: str, licence: str, note: str) -> Path:
    """Export the best weights with what was measured of them."""
    from squeezedet.exporting.bundle import bundle_checkpoint
    from squeezedet.runtime import bundle

    target = run.folder / f"{name}{bundle.SUFFIX}"
    made = bundle_checkpoint(best, name, licence=licence, data=note, calibrate_on=run.val)
    bundle.write(target, made)
    return target
