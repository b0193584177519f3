"""``squeezedet train``: from labelled images to a bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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


SMALLEST, LARGEST = 32, 4096
"""Sides of an input: the exported graph needs two cells; a card allows no more."""


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
        str | None, typer.Option(help="WxH that detection uses: 1248x384; the paper's is fixed.")
    ] = None,
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
    """Train a SqueezeDet on a KITTI folder and write a bundle that detects.

    The run folder gets metrics.csv, last.safetensors (every few minutes, and on Ctrl-C),
    best.safetensors and, at the end, NAME.bundle. --resume takes all options from the run.
    """
    from squeezedet.errors import MissingExtraError, UsageError

    try:
        from squeezedet.training import loop
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "squeezedet":
            raise
        raise MissingExtraError("training", "train") from error
    from squeezedet.data.kitti import read_folder
    from squeezedet.export.bundle import bundle_checkpoint
    from squeezedet.runtime import bundle
    from squeezedet.training.start import new_detector

    if "/" in name or not name:
        raise UsageError(f"--name: {name!r} is no name for a file")
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
    plan = _continued(out) if resume else _planned(recipe, size, init, optimizer)
    run = loop.Run(
        folder=out,
        train=read_folder(data, train_split),
        val=() if val_split == "none" else read_folder(data, val_split),
        class_map=plan.class_map,
        input=plan.input,
        recipe=replace(plan.recipe, **given),  # type: ignore[arg-type]
        quiet=quiet,
    )
    loop.use_threads(threads)
    detector = new_detector(plan.config, None if resume else init, run.recipe.seed)
    best = loop.train(detector, run, resume)
    target = out / f"{name}{bundle.SUFFIX}"
    note = data_note or f"{data}, split {train_split}: {len(run.train)} images"
    made = bundle_checkpoint(
        best, name, licence=licence or "not stated", data=note, calibrate_on=run.val
    )
    bundle.write(target, made)
    if not quiet:
        print(f"wrote {target}; try: squeezedet detect IMAGE --model {target}")


@dataclass(frozen=True)
class _Plan:
    """What a run is made of, before the options change its recipe."""

    config: SqueezeDetConfig
    recipe: Recipe
    class_map: ClassMap
    input: InputRule


def _planned(
    name: RecipeName, size: str | None, init: str | None, optimizer: OptimizerName | None
) -> _Plan:
    from squeezedet.data.sample import KITTI_DEFAULT, KITTI_PAPER
    from squeezedet.detectors.squeezedet import PAPER, SqueezeDetConfig
    from squeezedet.training import recipe as recipes

    rule = _input_rule(size, name)
    if name is RecipeName.paper:
        plan = _Plan(PAPER, recipes.PAPER, KITTI_PAPER, rule)
    else:
        plan = _Plan(SqueezeDetConfig(), recipes.Recipe(), KITTI_DEFAULT, rule)
    chosen = plan.recipe
    if optimizer and optimizer.value != chosen.optimizer:
        chosen = recipes.with_optimizer(chosen, optimizer.value)
    if init is None:  # conv1 is frozen because it is trained; a random one has to learn
        chosen = replace(chosen, frozen=())
    return replace(plan, recipe=chosen)


def _continued(out: Path) -> _Plan:
    """The plan of the run in a folder, from its last checkpoint."""
    from squeezedet.data.sample import KITTI_DEFAULT, KITTI_PAPER
    from squeezedet.errors import ModelError, UsageError
    from squeezedet.runtime.preprocess import InputRule
    from squeezedet.training import checkpoint
    from squeezedet.training.recipe import Recipe

    path = out / "last.safetensors"
    if not path.exists():
        raise UsageError(f"{out}: holds no run to continue; leave out --resume")
    saved = checkpoint.read(path)
    config = checkpoint.read_config(saved, path)
    try:
        values = {k: _tuples(v) for k, v in saved.metadata["recipe"].items()}
        recipe, rule = Recipe(**values), InputRule(**saved.metadata["input"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: does not say how the run was made: {error}") from error
    class_map = KITTI_PAPER if config.geometry == "paper" else KITTI_DEFAULT
    return _Plan(config, recipe, class_map, rule)


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _input_rule(size: str | None, name: RecipeName) -> InputRule:
    from squeezedet.detectors.squeezedet import PAPER_SIZE
    from squeezedet.errors import UsageError
    from squeezedet.runtime.preprocess import STRIDE, InputRule

    if name is RecipeName.paper:
        if size:
            raise UsageError("--size: the paper's geometry is 1242x375")
        return InputRule(*PAPER_SIZE, fixed=True)
    try:
        width, height = (int(side) for side in (size or "1248x384").lower().split("x"))
    except ValueError:
        raise UsageError(f"--size: {size!r} is not WIDTHxHEIGHT, for example 1248x384") from None
    sides = (width, height)
    if any(side % STRIDE or not SMALLEST <= side <= LARGEST for side in sides):
        raise UsageError(
            f"--size: the sides of {size} must be multiples of {STRIDE} "
            f"from {SMALLEST} to {LARGEST}"
        )
    return InputRule(width, height)
