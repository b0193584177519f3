"""``squeezedet classify``: images in, the likeliest classes out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from squeezedet.errors import DataError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from squeezedet.media.sources import Failure, MediaSource
    from squeezedet.models.squeezenet import SqueezeNet

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
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Look into the folders of a folder, too.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No table or notes; only errors.")] = False,
) -> None:
    """Say what images show, with a SqueezeNet and its published weights.

    Prints the likeliest of ImageNet's 1000 classes of each image with their probabilities.
    An image that cannot be used is named on standard error and the others go on; the exit
    code is then 3.
    """
    from squeezedet.files import check_file, text_file
    from squeezedet.media.sinks import STDOUT
    from squeezedet.media.sources import locate

    located = locate(sources, recursive=recursive)
    if output and output != STDOUT:
        check_file(Path(output))
    run = _Run(_open(weights, network), top, notes=not quiet)
    records = []
    for record in run.classify(located):
        records.append(record)
        if not quiet and output != STDOUT:
            print(_describe(record))
    text = json.dumps(records, indent=1) + "\n"
    if output == STDOUT:
        sys.stdout.write(text)
    elif output:
        with text_file(Path(output)) as file:
            file.write(text)
    if run.failures:
        raise typer.Exit(DataError.exit_code)


def _open(weights: Path, name: str | None) -> SqueezeNet:
    """The network with its weights.

    Raises:
        MissingExtraError: torch is not installed.
        UsageError: there is no such network, or it is no classifier.
        ModelError: the weights cannot be used.
    """
    try:
        from squeezedet.models.registry import config_of, find
        from squeezedet.models.squeezenet import from_weights
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "squeezedet":
            raise
        raise MissingExtraError("classifying", "train") from error
    if name and find(name).task != "classify":
        raise UsageError(f"{name} finds objects and classifies nothing: see squeezedet detect")
    return from_weights(weights, config_of(name) if name else None)


class _Run:
    """Classifies one image after the other.

    Attributes:
        failures: number of sources that gave no image.
    """

    def __init__(self, network: SqueezeNet, top: int, *, notes: bool) -> None:
        self.failures = 0
        self._network, self._top, self._notes = network, top, notes

    def classify(self, located: Sequence[MediaSource | Failure]) -> Iterator[dict[str, Any]]:
        """The record of each image that can be used; the others are named and counted."""
        from squeezedet.media.sources import Failure, frames
        from squeezedet.models.classify import classify as classes_of

        for item in frames(located):
            if isinstance(item, Failure):
                self.failures += 1
                print(f"squeezedet: {item.error}", file=sys.stderr)
                continue
            for note in item.notes if self._notes else ():
                print(f"squeezedet: {note}", file=sys.stderr)
            found = classes_of(self._network, item.pixels, self._top)
            height, width = item.pixels.shape[:2]
            yield {
                "image": item.name,
                "width": width,
                "height": height,
                "classes": [{"name": name, "probability": round(p, 6)} for name, p in found],
            }


def _describe(record: dict[str, Any]) -> str:
    """One image: its name and size, and below a line per class."""
    from squeezedet.media.sources import STDIN, STDIN_IN_WORDS
    from squeezedet.text import align

    name = STDIN_IN_WORDS if record["image"] == STDIN else record["image"]
    rows = [(found["name"], f"{found['probability']:.3f}") for found in record["classes"]]
    return f"{name}  {record['width']}x{record['height']}\n{align(rows, indent='  ')}"
