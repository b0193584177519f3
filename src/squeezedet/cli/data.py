"""``squeezedet data``: examine, convert, make labelled images, and find anchors for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from squeezedet.cli import options
from squeezedet.cli.options import STDOUT, check_target, table, write_json

if TYPE_CHECKING:
    from squeezedet.data.anchors import Fit
    from squeezedet.preprocess import InputRule

DataSets = Annotated[list[Path], Argument(metavar="DIR|FILE...", help="KITTI, VOC, COCO or YOLO data; several as one.")]
InputSize = Annotated[str, Option(metavar="WxH", help="Input size that training shall use.")]
Layout = Literal["kitti", "voc", "coco", "yolo"]


def convert(
    source: Annotated[Path, Argument(metavar="DIR|FILE", help="Folder, COCO's JSON, YOLO's data.yaml or a .txt list.")],
    target: Annotated[Path, Argument(metavar="DIR", help="New folder.")],
    *,
    to: Annotated[Layout, Option(help="Layout of the new folder.")],
    layout: Annotated[Layout | None, Option("--from", help="Layout of the source [default: found out].")] = None,
    max_skipped: Annotated[float, Option(min=0, max=1, help="Share of the labels that may be left out.")] = 0.01,
) -> None:
    """Write labelled images in another layout.

    Images become hard links (copies on another disk), pixels are never touched. What the new
    layout cannot say, and labels that cannot be used, are counted here and listed in
    not_converted.tsv of the new folder.

    Examples:
      squeezedet data convert roads roads-yolo --to yolo
      squeezedet data convert coco/annotations/instances_val2017.json val --to voc
      squeezedet data convert data.yaml kitti --to kitti --max-skipped 0.05
    """
    from squeezedet.data.convert import convert as convert_dataset
    from squeezedet.data.dataset import read_dataset

    dataset = read_dataset(source, layout=layout, max_skipped=max_skipped)
    done = convert_dataset(dataset, target, to)
    splits = ", ".join(f"{name} {count:,}" for name, count in done.splits.items())
    lines = [f"{target}: {done.images:,} images ({splits}), {done.objects:,} labels, {dataset.layout} -> {to}"]
    lines += [f"  in the source: {note}" for note in dataset.notes]
    lines += [f"  lost: {what}: {count:,}" for what, count in done.lost.items()]
    if dataset.skipped:
        count, first = len(dataset.skipped), dataset.skipped[0]
        lines.append(f"  left out: {count:,}, the first: {first}")
    if done.listed:
        lines.append(f"  each is listed in {done.listed}")
    print("\n".join(lines))


def doctor(
    data: DataSets,
    *,
    size: InputSize = "1248x384",
    classes: options.Classes = None,
    mapping: options.Map = None,
    out: options.JsonOut = None,
    pictures: Annotated[Path | None, Option(metavar="DIR", help="Write pictures of the worst examples.")] = None,
) -> None:
    """Read every label and image of a data set, and report what would harm a training.

    Several data sets are examined as one, as training reads them.

    Errors (exit code 3) would stop a training or make its figures wrong; warnings deserve a
    look; notes are good to know. Each names where; --out lists every place.

    Examples:
      squeezedet data doctor roads
      squeezedet data doctor roads people --classes car,person --map van=car,truck=ignore
      squeezedet data doctor data.yaml --size 640x640 --out doctor.json --pictures doctor
    """
    from squeezedet.data.doctor import describe, examine, to_dict, write_pictures
    from squeezedet.errors import DataError
    from squeezedet.text import counted

    rule = input_rule(size)
    check_target(out)
    diagnosis = examine(data, rule, options.names_of(classes), options.mapping_of(mapping))
    if out != STDOUT:
        print(describe(diagnosis))
    write_json(out, to_dict(diagnosis))
    written = write_pictures(pictures, diagnosis) if pictures else []
    if written and out != STDOUT:
        print(f"pictures: {counted(len(written), 'file')} in {pictures}")
    errors = diagnosis.count("error")
    if errors:
        raise DataError(f"{diagnosis.dataset.path}: {counted(errors, 'error')} to mend before training")


def input_rule(size: str) -> InputRule:
    """The rule of ``--size``: an image keeps its shape and gets at most so many pixels.

    Raises:
        UsageError: it is not two multiples of 16.
    """
    from squeezedet.errors import UsageError
    from squeezedet.preprocess import InputRule
    from squeezedet.text import parse_size

    try:
        return InputRule(*parse_size(size))
    except ValueError as error:
        raise UsageError(f"size: {size}: {error}") from error


def anchors(
    data: DataSets,
    *,
    k: Annotated[int, Option("-k", min=1, max=100, help="How many anchors.")] = 9,
    method: Annotated[
        Literal["iou", "euclidean"], Option(help="Distance of k-means: 1 - IoU, or width and height as in the paper.")
    ] = "iou",
    split: Annotated[str | None, Option(metavar="NAME", help="Split to fit [default: train, or else all].")] = None,
    size: InputSize = "1248x384",
    classes: options.Classes = None,
    mapping: options.Map = None,
    seed: Annotated[int, Option(min=0, help="Of the starts of k-means.")] = 0,
    out: options.JsonOut = None,
) -> None:
    """Find anchors for a data set, and say how well they and the built-in sets fit it.

    Best IoU: of an object with the most similar anchor, both with one center. Shapes are
    width x height in pixels of the network's input.

    Examples:
      squeezedet data anchors roads
      squeezedet data anchors data.yaml -k 12 --method euclidean --size 640x640 --out anchors.json
    """
    from dataclasses import asdict

    from squeezedet.data.anchors import ANCHORS_A, ANCHORS_B, cluster, input_shapes, measure, whole_pixels
    from squeezedet.data.dataset import class_map_for, read_datasets

    rule = input_rule(size)
    check_target(out)
    dataset = read_datasets(data)
    chosen = split or ("train" if "train" in dataset.splits else "all")
    class_map = class_map_for(dataset, options.names_of(classes), options.mapping_of(mapping))
    shapes, class_id = input_shapes(dataset.split(chosen), class_map, rule)
    found = whole_pixels(cluster(shapes, k, method, seed))
    sets = {f"k-means, {method}": found, "built-in A": ANCHORS_A, "built-in B": ANCHORS_B}
    fits = [measure(name, anchor_set, shapes, class_id, class_map.names) for name, anchor_set in sets.items()]
    if out != STDOUT:
        print(f"{dataset.path}, split {chosen}: {len(shapes):,} objects at an input of {size}")
        _print(fits)
        print(f"squeezedet train --anchors {k} finds such a set itself")
    write_json(out, [asdict(fit) for fit in fits])


def _print(fits: Sequence[Fit]) -> None:
    """Mean best IoU and share above 0.5 of each set, over all and by class; then the shapes."""
    from squeezedet.data.anchors import GOOD_IOU

    classes = list(fits[0].classes)
    above = f"> {GOOD_IOU}"
    rows = [["mean best IoU", "all", above, *(x for name in classes for x in (name, above))]]
    for fit in fits:
        pairs = [(fit.mean_iou, fit.good_share)]
        pairs += [(part.mean_iou, part.good_share) for part in fit.classes.values()]
        rows.append([fit.name, *(x for iou, good in pairs for x in (f"{iou:.3f}", f"{good:.1%}"))])
    table(rows)
    for fit in fits:
        print(f"  {fit.name}: " + " ".join(f"({w},{h})" for w, h in fit.anchors))


def synthesize(
    target: Annotated[Path, Argument(metavar="DIR", help="New KITTI folder.")],
    *,
    count: Annotated[int, Option(min=1, help="How many scenes.")] = 100,
    seed: Annotated[int, Option(min=0, help="Of the first scene; the next has one more.")] = 0,
    size: Annotated[str, Option(metavar="WxH", help="Of the pictures.")] = "1248x384",
    val_share: Annotated[float, Option(min=0, max=1, help="Share of the scenes, the last, for split val.")] = 0.1,
) -> None:
    """Draw road scenes with their labels: a KITTI folder with the splits train and val.

    The same seed and size give the same pictures and labels.

    Examples:
      squeezedet data synthesize scenes --count 100
      squeezedet data synthesize scenes --count 1000 --seed 5000 --size 640x384
    """
    from squeezedet.data.convert import new_folder
    from squeezedet.data.scenes import write_folder
    from squeezedet.text import parse_size

    width, height = parse_size(size)
    with new_folder(target) as folder:
        write_folder(folder, count, seed, width, height, val_share)
    print(f"{target}: {count:,} scenes of {width}x{height}, seeds {seed} to {seed + count - 1}")


data = (doctor, convert, anchors, synthesize)
