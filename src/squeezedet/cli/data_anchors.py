"""``squeezedet data anchors``: anchors for a data set, compared with the built-in ones."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from squeezedet.data.anchors import Fit
    from squeezedet.data.dataset import Dataset

EXAMPLES = """\
  squeezedet data anchors roads
  squeezedet data anchors data.yaml -k 12 --method euclidean --size 640x640 --json anchors.json
"""


class MethodName(StrEnum):
    """The distances, see ``squeezedet.data.anchors``."""

    iou = "iou"
    euclidean = "euclidean"


def anchors(
    data: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="KITTI, VOC, COCO or YOLO data.")
    ],
    *,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many anchors.")] = 9,
    method: Annotated[
        MethodName,
        typer.Option(help="Distance of k-means: 1 - IoU, or width and height as in the paper."),
    ] = MethodName.iou,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Split to fit [default: train, or all if none is]."),
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Input size that training shall use.")
    ] = "1248x384",
    seed: Annotated[int, typer.Option(min=0, help="Of the starts of k-means.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE|-", help="Write the sets as JSON.")
    ] = None,
) -> None:
    """Find anchors for a data set, and say how well they and the built-in sets fit it.

    Best IoU: of an object with the most similar anchor, both with one centre. Shapes are
    width x height in pixels of the network's input.
    """
    from squeezedet.cli.data_doctor import input_rule
    from squeezedet.data.anchors import (
        ANCHORS_A,
        ANCHORS_B,
        cluster,
        input_shapes,
        measure,
        whole_pixels,
    )
    from squeezedet.data.dataset import class_map_for, read_dataset
    from squeezedet.media.output import check_file

    rule = input_rule(size)
    to_stdout = str(json_file) == "-"
    if json_file and not to_stdout:
        check_file(json_file)
    dataset = read_dataset(data)
    chosen = split or _default_split(dataset)
    class_map = class_map_for(dataset)
    shapes, class_id = input_shapes(dataset.split(chosen), class_map, rule)
    found = whole_pixels(cluster(shapes, k, method.value, seed))
    sets = {f"k-means, {method.value}": found, "built-in A": ANCHORS_A, "built-in B": ANCHORS_B}
    fits = [
        measure(name, anchor_set, shapes, class_id, class_map.names)
        for name, anchor_set in sets.items()
    ]
    if not to_stdout:
        print(f"{data}, split {chosen}: {len(shapes):,} objects at an input of {size}")
        print(_table(fits))
    if json_file:
        _write_json(None if to_stdout else json_file, fits)


def _default_split(dataset: Dataset) -> str:
    return "train" if "train" in dataset.splits else "all"


def _table(fits: Sequence[Fit]) -> str:
    """Mean best IoU and share above 0.5 of each set, over all and by class; then the shapes."""
    from squeezedet.data.anchors import GOOD_IOU
    from squeezedet.media.table import align

    classes = list(fits[0].classes)
    above = f"> {GOOD_IOU}"
    rows = [["mean best IoU", "all", above, *(x for name in classes for x in (name, above))]]
    for fit in fits:
        pairs = [(fit.mean_iou, fit.good_share)]
        pairs += [(part.mean_iou, part.good_share) for part in fit.classes.values()]
        rows.append([fit.name, *(x for iou, good in pairs for x in (f"{iou:.3f}", f"{good:.1%}"))])
    lines = [align(rows, indent="  ")]
    lines += [f"  {fit.name}: " + " ".join(f"({w},{h})" for w, h in fit.anchors) for fit in fits]
    return "\n".join(lines)


def _write_json(path: Path | None, fits: Sequence[Fit]) -> None:
    """To a file, or to standard output."""
    import json
    from dataclasses import asdict

    from squeezedet.media.output import text_file

    text = json.dumps([asdict(fit) for fit in fits], indent=2)
    if path is None:
        print(text)
        return
    with text_file(path) as file:
        file.write(text + "\n")
