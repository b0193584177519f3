"""``squeezedet export``: from a checkpoint to a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\
  squeezedet export runs/roads/best.safetensors -o roads.bundle --name roads
  squeezedet detect street.jpg --model roads.bundle
"""


def export(
    checkpoint: Annotated[Path, typer.Argument(help="best.safetensors or last.safetensors.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle to write.")],
    name: Annotated[str, typer.Option(help="Name of the model.")] = "squeezedet",
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "",
    data_note: Annotated[str, typer.Option(help="What it was trained on, for the card.")] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="KITTI folder: move the scores so that 0.4 has the best F2 on it."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
    results: Annotated[
        Path | None,
        typer.Option(help="JSON of `squeezedet evaluate`, for the card [default: the run's own]."),
    ] = None,
) -> None:
    """Export a checkpoint: decoding in the graph, pixels in, boxes out, checked for parity."""
    from squeezedet.errors import DataError, MissingExtraError

    try:
        from squeezedet.export.bundle import UNKNOWN, bundle_checkpoint
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "squeezedet":
            raise
        raise MissingExtraError("export", "train") from error
    from squeezedet.data.kitti import read_folder
    from squeezedet.runtime import bundle

    measured = None
    if results:
        try:
            measured = json.loads(results.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{results}: not a JSON file that can be read: {error}") from error
    made = bundle_checkpoint(
        checkpoint,
        name,
        licence=licence or UNKNOWN,
        data=data_note or UNKNOWN,
        results=measured,
        calibrate_on=read_folder(data, split) if data else (),
    )
    bundle.write(output, made)
    print(f"wrote {output}: {output.stat().st_size:,} bytes, {made.card.parameters:,} parameters")
