"""``squeezedet train``: from labelled images to a bundle."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from squeezedet.cli import options
from squeezedet.text import parse_size

if TYPE_CHECKING:
    from squeezedet.training.callbacks import Callback

EXAMPLES = """\
  squeezedet train --data roads --init squeezenet_v1.1.caffemodel --out runs/roads
  squeezedet train --data roads --out runs/roads --resume
  squeezedet train --data roads --config recipe.toml --max-hours 8
  squeezedet train --data signs/data.yaml --network tiny-ssd --out runs/signs
  squeezedet train --data kitti --init squeezenet_v1.1.caffemodel --recipe paper
"""


def train(
    *,
    data: Annotated[list[Path], typer.Option(help="KITTI, VOC, COCO or YOLO data: folder or file; may be repeated.")],
    data_weight: Annotated[
        list[float] | None, typer.Option(min=0, help="How often images of each --data are drawn; in their order.")
    ] = None,
    classes: options.Classes = None,
    mapping: options.Map = None,
    network: Annotated[
        str | None, typer.Option(help="See `squeezedet models --networks` [default: that of --init, or squeezedet].")
    ] = None,
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
    val_split: Annotated[
        str | None, typer.Option(help="Split to validate on; 'none' for none [default: val if there is one].")
    ] = None,
    recipe: Annotated[
        Literal["default", "paper"], typer.Option(help="'paper': its geometry, loss, drift and SGD schedule.")
    ] = "default",
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML: fields of [recipe] and [network] to override.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="WxH that detection uses [default: the network's].")] = None,
    anchors: Annotated[
        int, typer.Option(min=0, max=64, help="Find so many anchor shapes in the data; 0: built-in.")
    ] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps [default: 6000].")] = None,
    epochs: Annotated[float | None, typer.Option(min=0.001, help="Steps, as passes over the images.")] = None,
    max_hours: Annotated[
        float | None, typer.Option(min=0.001, help="As many steps as fit; end after that time, with a bundle.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images a step, of each process [default: 8; paper 20].")
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "sgd"] | None,
        typer.Option(help="With its own rate, decay and clip [default: adamw; paper sgd]."),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="[default: 0.0005 adamw; 0.01 sgd].")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="Learn from this ConvDet model's answers, too (distillation)."),
    ] = None,
    freeze: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="Do not train it; wildcards: 'backbone.fire*'.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Of everything random [default: 0].")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that prepare images.")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1, ... or mps.")] = None,
    threads: options.Threads = None,
    validate_every: Annotated[int | None, typer.Option(min=1, help="In steps.")] = None,
    protocol: Annotated[
        options.Protocol | None,
        typer.Option(help="Whose rules validation follows [default: kitti for its classes, voc]."),
    ] = None,
    early_stop: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="End when the mean AP on training images has not risen in N validations."
        ),
    ] = None,
    checkpoint_every: Annotated[float | None, typer.Option(min=0, help="Seconds between checkpoints.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out, exactly.")] = False,
    process_timeout: Annotated[
        float, typer.Option(min=1, help="Under torchrun: seconds to wait for another process.")
    ] = 600,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard's files, too.")] = False,
    wandb: Annotated[bool, typer.Option(help="Log to Weights & Biases, too.")] = False,
    mlflow: Annotated[bool, typer.Option(help="Log to MLflow, too.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the model [default: the run folder's].")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "",
    data_note: Annotated[str, typer.Option(help="What the data is, for the card.")] = "",
    quiet: options.Quiet = False,
) -> None:
    """Train a detector on labelled images and write a bundle that detects.

    Classes and output channels follow from the data. The run folder gets config.toml,
    metrics.csv, index.html with curves and pictures, last.safetensors (every few minutes, and
    on Ctrl-C), best.safetensors and, at the end, a bundle named after the folder. --resume takes
    network, recipe and classes from the run.
    """
    from squeezedet.training.train import train as run

    result = run(
        data,
        out=out,
        network=network,
        init=init,
        train_split=train_split,
        val_split=val_split,
        classes=options.names_of(classes),
        mapping=options.mapping_of(mapping),
        data_weights=data_weight,
        paper=recipe == "paper",
        config=config,
        size=parse_size(size) if size else None,
        anchors=anchors,
        epochs=epochs,
        max_hours=max_hours,
        resume=resume,
        tensorboard=tensorboard,
        callbacks=_loggers(wandb, mlflow),
        name=name,
        licence=licence,
        data_note=data_note,
        threads=threads,
        process_timeout=process_timeout,
        quiet=quiet,
        command=shlex.join(["squeezedet", *sys.argv[1:]]),
        steps=steps,
        batch=batch,
        optimizer=optimizer,
        learning_rate=learning_rate,
        teacher=teacher,
        frozen=tuple(freeze) if freeze else None,
        seed=seed,
        workers=workers,
        device=device,
        validate_every=validate_every,
        protocol=protocol,
        early_stop=early_stop,
        checkpoint_every_s=checkpoint_every,
    )
    if result.bundle and not quiet:
        print(f"wrote {result.bundle}; try: squeezedet detect IMAGE --model {result.bundle}")


def _loggers(wandb: bool, mlflow: bool) -> list[Callback]:
    from squeezedet.training.callbacks import MLflow, WandB

    wanted: list[Callback] = []
    if wandb:
        wanted.append(WandB())
    if mlflow:
        wanted.append(MLflow())
    return wanted
