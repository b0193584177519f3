"""``squeezedet evaluate``: how good a model, or files of detections, are on labelled images."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Option

from squeezedet.cli import options
from squeezedet.cli.options import STDOUT, check_target, say, table, write_json
from squeezedet.errors import UsageError


def evaluate(
    *,
    data: options.OptionalData = None,
    split: options.Split = None,
    model: options.OptionalModel = None,
    labels: Annotated[
        Path | None,
        Option(metavar="PATH", help="Labels without images: folder of KITTI labels, VOC folder, or COCO file."),
    ] = None,
    detections: Annotated[
        Path | None,
        Option(metavar="PATH", help="Evaluate these: KITTI result folder, folder of VOC's CLASS.txt, or COCO file."),
    ] = None,
    protocol: Annotated[
        options.Protocol | None, Option(help="Whose rules [default: KITTI's for its classes and folders, else COCO's].")
    ] = None,
    rules: options.Rules = "current",
    classes: options.Classes = None,
    mapping: options.Map = None,
    overlaps: Annotated[
        list[str] | None,
        Option(
            "--overlap",
            metavar="CLASS=IOU",
            help="KITTI: this class at this overlap; give it again for more [default: KITTI's; 0.5 for others].",
        ),
    ] = None,
    bootstrap: Annotated[int, Option(min=0, metavar="N", help="95% intervals by N draws of the images.")] = 0,
    out: options.JsonOut = None,
    report: Annotated[Path | None, Option(metavar="DIR", help="Write a page with curves and pictures.")] = None,
    engine: options.Engine = None,
    device: Annotated[
        str, Option(metavar="DEVICE", help="In place of --engine: auto, cpu, cuda, cuda:1, ... or mps.")
    ] = "auto",
    threads: options.Threads = None,
    trust_model: options.TrustModel = False,
) -> None:
    """Evaluate a model, or files of detections, by the rules of KITTI, VOC or COCO.

    Give labels (--data, or --labels without images) and what was found in them (--model,
    which needs --data, or --detections). Every detection counts, whatever its
    score; how many a model reports of an image, after suppression, says its card.

    Examples:
      squeezedet evaluate --data roads --model street --report report
      squeezedet evaluate --data data.yaml --split val --model best.bundle --map van=car
      squeezedet evaluate --data kitti --detections results --rules paper -o ap.json
      squeezedet evaluate --labels kitti/label_2 --detections results --bootstrap 1000
      squeezedet evaluate --labels VOC2007 --split test --detections results
      squeezedet evaluate --labels instances.json --detections results.json
    """
    given = options.given(locals(), without=("overlaps", "out", "report"))
    from squeezedet.evaluation import evaluate as library
    from squeezedet.files import make_folder

    own = _overlaps(overlaps or ())
    if report:
        from squeezedet.pages import check_installed

        check_installed()
        make_folder(report)
    check_target(out)
    found = library.evaluate(**given, overlaps=own, recall_curve=report is not None)
    if out != STDOUT:
        print(found.headline())
        table(found.rows(), left=(0, 1))
    for note in found.all_notes():
        say(note)
    write_json(out, found.to_dict())
    if report:
        page = replace(found, command=shlex.join(["squeezedet", *sys.argv[1:]])).write(report)
        print(f"report: {page}", file=sys.stderr if out == STDOUT else sys.stdout)


def _overlaps(pairs: Sequence[str]) -> dict[str, float]:
    try:
        return {name: float(overlap) for name, _, overlap in (pair.rpartition("=") for pair in pairs)}
    except ValueError as error:
        raise UsageError(f"`overlaps`: {', '.join(pairs)}: write CLASS=IOU, as in car=0.7") from error
