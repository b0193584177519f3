"""``squeezedet demo``: the shipped model on the shipped picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\
  squeezedet demo
  squeezedet demo --out /tmp/demo
"""


def demo(
    output: Annotated[
        Path, typer.Option("--out", "-o", "--output", metavar="DIR", help="Where the picture goes.")
    ] = Path("squeezedet-demo"),
) -> None:
    """Detect in the picture that comes with the package.

    Prints what the shipped model finds in a drawn street scene and writes the
    picture with the boxes.
    """
    from squeezedet.media.sinks import PictureFolder
    from squeezedet.media.summary import describe
    from squeezedet.runtime.detector import load
    from squeezedet.runtime.parity import sample_frame

    folder = PictureFolder(output)
    frame = sample_frame()
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
