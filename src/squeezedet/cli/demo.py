"""``squeezedet demo``: the shipped model on the shipped picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\
  squeezedet demo
  squeezedet demo --out /tmp/demo
"""

PICTURE = "demo.*"
"""A synthetic street (``squeezedet.data.scenes``), beside the models."""


def demo(
    output: Annotated[
        Path, typer.Option("--out", "-o", "--output", metavar="DIR", help="Where the picture goes.")
    ] = Path("squeezedet-demo"),
) -> None:
    """Detect in the picture that comes with the package.

    Prints what the shipped model finds in a drawn street scene and writes the
    picture with the boxes.
    """
    from squeezedet.errors import ModelError
    from squeezedet.media.images import read_image
    from squeezedet.media.sinks import PictureFolder
    from squeezedet.media.summary import describe
    from squeezedet.runtime.bundle import WEIGHTS
    from squeezedet.runtime.detector import load

    source = next(iter(sorted(WEIGHTS.glob(PICTURE))), None)
    if source is None:
        raise ModelError(f"{WEIGHTS}: the package holds no picture for the demo; install it again")
    folder = PictureFolder(output)
    frame = read_image(source, source.name)
    detections = load().detect(frame)
    print(describe(detections))
    path = folder.write(frame, detections)
    print(
        f"\nThe picture with its boxes: {path}\n\n"
        "Now try an image of your own:\n"
        "  squeezedet detect street.jpg --save annotated\n"
        "and for all there is to know:\n"
        "  squeezedet detect --help"
    )
