"""``squeezedet classify``: images in, the likeliest classes out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from squeezedet.cli import options
from squeezedet.cli.output import STDOUT, check_target, say, write_json
from squeezedet.errors import DataError, UsageError

EXAMPLES = """\
  squeezedet classify photo.jpg --weights compressed_SqueezeNet.net
  squeezedet classify photos --weights squeezenet_v1_1.onnx --top 1
  squeezedet classify 'trip/*.png' --weights v1_0.caffemodel --json classes.json
"""


def classify(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Image, folder, quoted pattern, http(s) address, or - for standard input.",
            show_default=False,
        ),
    ],
    *,
    weights: Annotated[
        Path, typer.Option(help="Weights of a SqueezeNet: .bundle, .net, .onnx, .caffemodel, .safetensors, .npz.")
    ],
    network: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Such as squeezenet-1.0 [default: what the shapes in the file say; "
            "squeezenet-1.0-simple has those of squeezenet-1.0 and must be named].",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes of each image.")] = 5,
    output: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Write records to this file, or - for standard output."),
    ] = None,
    recursive: options.Recursive = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No table or notes; only errors.")] = False,
) -> None:
    """Say what images show, with a SqueezeNet and its published weights.

    Prints the likeliest of ImageNet's 1000 classes of each image with their probabilities.
    An image that cannot be used is named on standard error and the others go on; the exit
    code is then 3.
    """
    from squeezedet.media.sources import Failure, frames, locate
    from squeezedet.models.registry import config_of, find
    from squeezedet.models.squeezenet import classify as classes_of
    from squeezedet.models.squeezenet import from_weights

    located = locate(sources, recursive=recursive)
    check_target(output)
    if network and find(network).task != "classify":
        raise UsageError(f"{network} finds objects and classifies nothing: see squeezedet detect")
    net = from_weights(weights, config_of(network) if network else None)
    records, failures = [], 0
    for item in frames(located):
        if isinstance(item, Failure):
            failures += 1
            say(item.error)
            continue
        for note in item.notes if not quiet else ():
            say(note)
        height, width = item.pixels.shape[:2]
        classes = [{"name": name, "probability": round(p, 6)} for name, p in classes_of(net, item.pixels, top)]
        records.append({"image": item.name, "width": width, "height": height, "classes": classes})
        if not quiet and output != STDOUT:
            print(_describe(records[-1]))
    write_json(output, records)
    if failures:
        raise typer.Exit(DataError.exit_code)


def _describe(record: dict[str, Any]) -> str:
    """One image: its name and size, and below a line per class."""
    from squeezedet.media.sources import STDIN, STDIN_IN_WORDS
    from squeezedet.text import align

    name = STDIN_IN_WORDS if record["image"] == STDIN else record["image"]
    rows = [(found["name"], f"{found['probability']:.3f}") for found in record["classes"]]
    return f"{name}  {record['width']}x{record['height']}\n{align(rows, indent='  ')}"
