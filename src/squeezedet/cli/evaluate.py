"""``squeezedet evaluate``: judge a model, or files of detections, against labels."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squeezedet.cli.options import Protocol, RuleSet
from squeezedet.errors import DataError, UsageError

if TYPE_CHECKING:
    from squeezedet.detections import Detections
    from squeezedet.evaluation.evaluate import EvaluationInput
    from squeezedet.evaluation.kitti import ClassRule
    from squeezedet.evaluation.recall import RecallCurve

EXAMPLES = """\
  squeezedet evaluate --data roads --split val --model squeezedet --report report
  squeezedet evaluate --data kitti --detections results --rules paper -o ap.json
  squeezedet evaluate --labels kitti/label_2 --detections results --bootstrap 1000
  squeezedet evaluate --protocol voc --labels VOC2007 --split test --detections results
  squeezedet evaluate --protocol coco --labels instances.json --detections results.json
"""

SHOWN_SCORE = 0.4
"""Confusion and per-image table count detections from here on, unless the model says otherwise."""


def evaluate(
    *,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="KITTI folder: image_2 and label_2.")
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Split of the data: val, all, a list of ids.")
    ] = "all",
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="Judge this shipped model or bundle."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Labels without images: folder of KITTI labels, VOC folder, or COCO file.",
        ),
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Judge these: KITTI result folder, folder of VOC's CLASS.txt, or COCO file.",
        ),
    ] = None,
    protocol: Annotated[Protocol, typer.Option(help="Whose rules.")] = Protocol.kitti,
    rules: Annotated[
        RuleSet, typer.Option(help="KITTI: the tool of the paper (2016), or the server's rules.")
    ] = RuleSet.current,
    overlap: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS=IOU",
            help="KITTI: judge these classes at these overlaps [default: KITTI's; 0.5 for others].",
        ),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, metavar="N", help="95% intervals by N draws of the images.")
    ] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the result as JSON.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a page with curves and pictures.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Processor threads [default: all cores].")
    ] = None,
) -> None:
    """Judge a model, or files of detections, by the rules of KITTI, VOC or COCO.

    Give labels (--data, or --labels without images) and what was found in them (--model,
    which needs --data, or --detections). Every detection counts, whatever its
    score; a model reports at most the best 64 of an image, after suppression.
    """
    from squeezedet.evaluation.evaluate import evaluate, notes, rows
    from squeezedet.files import check_file, make_folder
    from squeezedet.text import align

    _check(data=data, model=model, labels=labels, detections=detections)
    table = _overlaps(overlap or [])
    if report:
        make_folder(report)
    if json_file:
        check_file(json_file)
    curve, score = None, SHOWN_SCORE
    said: list[str] = []
    if model is not None and data is not None:
        material, curve, score = _run_model(
            data, split, model, threads=threads, with_curve=report is not None
        )
    else:
        source = data or labels
        assert source is not None and detections is not None  # noqa: S101 (for mypy)
        material, said = _read(source, split, detections, protocol)
    if table:
        material = replace(material, classes=table)
    result, intervals = evaluate(material, protocol.value, rules.value, bootstrap)
    print(f"{_title(protocol, rules)}: {_counts(result.to_dict()['counts'])}")
    print(align(rows(result, intervals), left=(0, 1), indent="  "))
    for note in [*said, *notes(result)]:
        print(f"squeezedet: {note}", file=sys.stderr)
    if json_file:
        _write_json(json_file, result.to_dict(), intervals)
    if report:
        from squeezedet.evaluation.report import Report, write

        title = f"{model or detections} on {data or labels} ({split})"
        command = shlex.join(["squeezedet", *sys.argv[1:]])
        page = write(
            report, Report(title, command, material, result, intervals, curve, score, said)
        )
        print(f"report: {page}")


def _title(protocol: Protocol, rules: RuleSet) -> str:
    return f"KITTI, rules {rules.value!r}" if protocol is Protocol.kitti else protocol.value.upper()


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items())


def _check(**given: Path | str | None) -> None:
    if (given["data"] is None) == (given["labels"] is None):
        raise UsageError("give either --data (images and labels) or --labels (labels alone)")
    if (given["model"] is None) == (given["detections"] is None):
        raise UsageError("give either --model or --detections")
    if given["model"] is not None and given["data"] is None:
        raise UsageError("--model needs images: give --data instead of --labels")


def _overlaps(pairs: Sequence[str]) -> list[ClassRule]:
    from squeezedet.evaluation.kitti import rules_for

    table = []
    for pair in pairs:
        name, sign, value = pair.partition("=")
        try:
            overlap = float(value)
        except ValueError:
            overlap = -1.0
        if not name or not sign or not 0 <= overlap < 1:
            raise UsageError(f"--overlap {pair!r}: write CLASS=IOU, with an IoU from 0 to below 1")
        table.append(replace(rules_for([name])[0], name=name, min_overlap=overlap))
    return table


def _run_model(
    data: Path, split: str, model: str, *, threads: int | None, with_curve: bool
) -> tuple[EvaluationInput, RecallCurve | None, float]:
    """Detect in every image; also the recall curve and the model's own score threshold."""
    from squeezedet.data.kitti import read_folder
    from squeezedet.evaluation.evaluate import EvaluationInput
    from squeezedet.evaluation.kitti import rules_for
    from squeezedet.evaluation.recall import first_ranks, recall_curve
    from squeezedet.media.images import read_image
    from squeezedet.runtime.detector import load

    samples = read_folder(data, split)
    detector = load(model, threads=threads)
    classes = rules_for(detector.names)
    found: list[Detections] = []
    ranks = []
    for sample in samples:
        frame = read_image(sample.image)
        found.append(detector.detect(frame, score=0.0))
        if with_curve:
            raw = detector.raw(frame)
            ranks.append(
                first_ranks(
                    sample.objects,
                    raw.xyxy,
                    raw.score,
                    raw.class_id,
                    names=detector.names,
                    classes=classes,
                )
            )
    material = EvaluationInput(
        ids=[sample.id for sample in samples],
        images=[sample.image for sample in samples],
        truth=[sample.objects for sample in samples],
        detections=found,
        classes=classes,
    )
    return material, recall_curve(ranks) if with_curve else None, detector.card.selection.score


def _read(
    source: Path, split: str, detections: Path, protocol: Protocol
) -> tuple[EvaluationInput, list[str]]:
    """Labels and detections from files, and what to say about them."""
    if protocol is Protocol.coco and source.is_file():
        from squeezedet.evaluation import coco
        from squeezedet.evaluation.evaluate import coco_input

        labels = coco.read_labels(source)
        return coco_input(labels, coco.read_records(detections, labels)), []
    if protocol is Protocol.voc and (source / "Annotations").is_dir():
        return _read_voc(source, split, detections), []
    return _read_kitti(source, split, detections)


def _read_voc(source: Path, split: str, folder: Path) -> EvaluationInput:
    from squeezedet.evaluation.evaluate import EvaluationInput, objects_of_voc
    from squeezedet.evaluation.kitti import ClassRule
    from squeezedet.evaluation.voc import MIN_OVERLAP, image_ids, read_annotations, read_detections

    ids = image_ids(source, split)
    truth = read_annotations(source, ids)
    found = read_detections(folder, ids)
    labelled = dict.fromkeys(name for o in truth for name in o.types)
    names = found[0].names
    silent = [n for n in labelled if n.lower() not in {name.lower() for name in names}]
    return EvaluationInput(
        ids=ids,
        images=None,
        truth=[objects_of_voc(o) for o in truth],
        detections=found,
        classes=[ClassRule(name, MIN_OVERLAP) for name in [*names, *sorted(silent)]],
        voc=truth,
    )


def _read_kitti(source: Path, split: str, folder: Path) -> tuple[EvaluationInput, list[str]]:
    from squeezedet.data.kitti import read_folder, read_labels
    from squeezedet.evaluation.evaluate import EvaluationInput
    from squeezedet.evaluation.kitti import KITTI_CLASSES, read_results, result_files

    images: list[Path] | None = None
    if (source / "image_2").is_dir():
        samples = read_folder(source, split)
        ids = [sample.id for sample in samples]
        images = [sample.image for sample in samples]
        truth = [sample.objects for sample in samples]
    else:
        labels = source / "label_2" if (source / "label_2").is_dir() else source
        ids = _ids(source, labels, split)
        truth = [read_labels(labels / f"{i}.txt") for i in ids]
    missing = len(ids) - len(result_files(folder, ids))
    said = [f"{missing} of {len(ids)} images have no result file: nothing found in them"]
    found = read_results(folder, ids)
    return EvaluationInput(ids, images, truth, found, KITTI_CLASSES), said if missing else []


def _ids(source: Path, labels: Path, split: str) -> list[str]:
    """The images of a split of labels that come without images."""
    if split != "all":
        for listing in (source / f"{split}.txt", Path(split)):
            if listing.is_file() and listing.parent != labels:
                return listing.read_text(encoding="utf-8-sig").split()
        raise DataError(f"{source}: no {split}.txt that lists the images of split {split!r}")
    ids = sorted(path.stem for path in labels.glob("*.txt"))
    if not ids:
        raise DataError(f"{labels}: no labels (*.txt)")
    return ids


def _write_json(path: Path, answer: dict[str, object], intervals: object) -> None:
    import json

    from squeezedet.evaluation.bootstrap import Intervals
    from squeezedet.files import text_file

    if isinstance(intervals, Intervals):
        answer["intervals"] = intervals.to_dict()
    with text_file(path) as file:
        file.write(json.dumps(answer, indent=2) + "\n")
