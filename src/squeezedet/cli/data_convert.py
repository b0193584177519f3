"""``squeezedet data convert``: labelled images from one layout to another."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from squeezedet.data.convert import Conversion
    from squeezedet.data.dataset import Dataset

EXAMPLES = """\
  squeezedet data convert roads roads-yolo --to yolo
  squeezedet data convert coco/annotations/instances_val2017.json val --to voc
  squeezedet data convert data.yaml kitti --to kitti --max-skipped 0.05
"""


class LayoutName(StrEnum):
    """The layouts, see ``squeezedet.data.dataset``."""

    kitti = "kitti"
    voc = "voc"
    coco = "coco"
    yolo = "yolo"


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE", help="Folder, COCO's JSON, YOLO's data.yaml or a .txt list."
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="DIR", help="New folder.")],
    *,
    to: Annotated[LayoutName, typer.Option(help="Layout of the new folder.")],
    layout: Annotated[
        LayoutName | None, typer.Option("--from", help="Layout of the source [default: found out].")
    ] = None,
    max_skipped: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the labels that may be left out.")
    ] = 0.01,
) -> None:
    """Write labelled images in another layout.

    Images become hard links (copies on another disk), pixels are never touched. What the new
    layout cannot say, and labels that cannot be used, are counted here and listed in
    not_converted.tsv of the new folder.
    """
    from squeezedet.data.convert import convert as convert_dataset
    from squeezedet.data.dataset import read_dataset

    dataset = read_dataset(source, layout=layout.value if layout else None, max_skipped=max_skipped)
    print("\n".join(_describe(dataset, convert_dataset(dataset, target, to.value))))


def _describe(dataset: Dataset, done: Conversion) -> list[str]:
    splits = ", ".join(f"{name} {count:,}" for name, count in done.splits.items())
    lines = [
        f"{done.path}: {done.images:,} images ({splits}), {done.objects:,} labels, "
        f"{dataset.layout} -> {done.layout}"
    ]
    lines += [f"  in the source: {note}" for note in dataset.notes]
    lines += [f"  lost: {what}: {count:,}" for what, count in done.lost.items()]
    if dataset.skipped:
        count, first = len(dataset.skipped), dataset.skipped[0]
        lines.append(f"  left out: {count:,}, the first: {first}")
    if done.listed:
        lines.append(f"  each is listed in {done.listed}")
    return lines
