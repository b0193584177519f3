"""``squeezedet train``: from labelled images to a bundle."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from squeezedet.cli import options


def train(
    *,
    data: Annotated[list[Path], Option(help="KITTI, VOC, COCO or YOLO data: folder or file; may be repeated.")],
    data_weights: Annotated[
        list[float] | None,
        Option("--data-weight", min=0, help="How often images of each --data are drawn; in their order."),
    ] = None,
    classes: options.Classes = None,
    mapping: options.Map = None,
    network: Annotated[str | None, Option(help="See `models --networks` [default: of --init, or squeezedet].")] = None,
    out: Annotated[Path, Option(help="Run folder.")] = Path("runs/squeezedet"),
    init: Annotated[
        str | None,
        Option(
            metavar="FILE|NAME",
            help="Start from a SqueezeNet (ONNX, Caffe, NumPy), darknet's .weights, a bundle, "
            "a shipped model or a checkpoint [default: random weights].",
        ),
    ] = None,
    train_split: options.TrainSplit = "train",
    val_split: Annotated[str | None, Option(help="Split to validate on, or 'none' [default: val, if any].")] = None,
    recipe: Annotated[
        Literal["default", "paper"], Option(help="'paper': its geometry, loss, drift and SGD schedule.")
    ] = "default",
    config: Annotated[Path | None, Option(metavar="FILE", help="TOML: fields of [recipe] and [network].")] = None,
    size: Annotated[str | None, Option(help="WxH that detection uses [default: the network's].")] = None,
    anchors: Annotated[int, Option(min=0, max=64, help="Find so many anchor shapes in the data; 0: built-in.")] = 0,
    steps: Annotated[int | None, Option(min=1, help="Steps [default: 6000].")] = None,
    epochs: Annotated[float | None, Option(min=0.001, help="Steps, as passes over the images.")] = None,
    max_hours: Annotated[float | None, Option(min=0.001, help="As many steps as fit; end then, with a bundle.")] = None,
    batch: Annotated[int | None, Option(min=1, help="Images a step, of each process [default: 8; paper 20].")] = None,
    optimizer: Annotated[
        Literal["adamw", "sgd"] | None, Option(help="With its own rate and decay [default: adamw; paper sgd].")
    ] = None,
    learning_rate: Annotated[float | None, Option(min=0, help="[default: 0.0005 adamw; 0.01 sgd].")] = None,
    teacher: Annotated[str | None, Option(metavar="FILE|NAME", help="Learn from this ConvDet model, too.")] = None,
    frozen: Annotated[
        list[str] | None, Option("--freeze", metavar="LAYER", help="Do not train it; wildcards: 'backbone.fire*'.")
    ] = None,
    seed: Annotated[int | None, Option(min=0, max=2**31 - 1, help="Of everything random [default: 0].")] = None,
    workers: Annotated[int | None, Option(min=0, help="Processes that prepare images.")] = None,
    device: options.Device = None,
    threads: options.Threads = None,
    validate_every: Annotated[int | None, Option(min=1, help="In steps.")] = None,
    protocol: Annotated[
        options.Protocol | None, Option(help="Whose rules validation follows [default: kitti for its classes, voc].")
    ] = None,
    early_stop: Annotated[
        int | None, Option(min=0, metavar="N", help="End when AP on training images has not risen in N validations.")
    ] = None,
    checkpoint_every_s: Annotated[float | None, Option("--checkpoint-every", min=0, help="In seconds.")] = None,
    resume: Annotated[bool, Option(help="Continue the run in --out, exactly.")] = False,
    process_timeout: Annotated[float, Option(min=1, help="Under torchrun: seconds to wait for another process.")] = 600,
    tensorboard: Annotated[bool, Option(help="Write TensorBoard's files, too.")] = False,
    wandb: Annotated[bool, Option(help="Log to Weights & Biases, too.")] = False,
    mlflow: Annotated[bool, Option(help="Log to MLflow, too.")] = False,
    name: Annotated[str | None, Option(help="Name of the model [default: the run folder's].")] = None,
    licence: Annotated[str, Option(help="Licence of the weights, for the card.")] = "",
    data_note: Annotated[str, Option(help="What the data is, for the card.")] = "",
    quiet: options.Quiet = False,
) -> None:
    """Train a detector on labelled images and write a bundle that detects.

    Classes and output channels follow from the data. The run folder gets config.toml,
    metrics.csv, index.html with curves and pictures, last.safetensors (every few minutes, and
    on Ctrl-C), best.safetensors and, at the end, a bundle named after the folder. --resume takes
    network, recipe and classes from the run.

    Examples:
      squeezedet train --data roads --init squeezenet_v1.1.caffemodel --out runs/roads
      squeezedet train --data roads --out runs/roads --resume
      squeezedet train --data roads --config recipe.toml --max-hours 8
      squeezedet train --data signs/data.yaml --network tiny-ssd --out runs/signs
      squeezedet train --data kitti --init squeezenet_v1.1.caffemodel --recipe paper
    """
    given = options.given(locals(), without=("recipe", "wandb", "mlflow"))
    from squeezedet.training.callbacks import MLflow, WandB
    from squeezedet.training.train import train as run

    loggers = [kind() for kind, wanted in ((WandB, wandb), (MLflow, mlflow)) if wanted]
    command = shlex.join(["squeezedet", *sys.argv[1:]])
    result = run(**given, paper=recipe == "paper", callbacks=loggers, command=command)
    if result.bundle and not quiet:
        print(f"wrote {result.bundle}; try: squeezedet detect IMAGE --model {result.bundle}")
