"""``squeezedet data synthesize``: drawn road scenes with exact labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\
  squeezedet data synthesize scenes --count 100
  squeezedet data synthesize scenes --count 1000 --seed 5000 --size 640x384
"""


def synthesize(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="New KITTI folder.")],
    *,
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 100,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the first scene; the next has one more.")
    ] = 0,
    size: Annotated[str, typer.Option(metavar="WxH", help="Of the pictures.")] = "1248x384",
    val_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the scenes, the last, for split val.")
    ] = 0.1,
) -> None:
    """Draw road scenes with their labels: a KITTI folder with the splits train and val.

    The same seed and size give the same pictures and labels.
    """
    from squeezedet.data.convert import new_folder
    from squeezedet.data.synthetic import write_folder

    width, height = _size(size)
    with new_folder(target) as folder:
        write_folder(folder, count, seed, width, height, val_share)
    print(f"{target}: {count:,} scenes of {width}x{height}, seeds {seed} to {seed + count - 1}")


def _size(text: str) -> tuple[int, int]:
    from squeezedet.errors import UsageError

    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--size: {text!r} is not WIDTHxHEIGHT, for example 1248x384") from None
    return width, height
