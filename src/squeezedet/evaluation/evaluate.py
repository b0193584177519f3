"""``squeezedet.evaluate``: how good a detector, or files of detections, are on labelled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from squeezedet.data.coco import label_files
from squeezedet.data.dataset import Layout, detect_layout
from squeezedet.errors import DataError, UsageError
from squeezedet.evaluation import coco, kitti, voc
from squeezedet.evaluation.inputs import (
    EvaluationInput,
    Labels,
    choose_split,
    compare_names,
    read_data,
    read_detections,
    read_only_labels,
    run_detector,
)
from squeezedet.evaluation.matching import Intervals
from squeezedet.evaluation.report import Report, Result

if TYPE_CHECKING:
    from squeezedet.runtime.detector import Detector

Protocol = Literal["kitti", "voc", "coco"]
SHOWN_SCORE = 0.4
"""Confusion and per-image table count detections from here on, unless the model says otherwise."""


def evaluate(
    model: str | Path | Detector | None = None,
    data: str | Path | None = None,
    *,
    split: str | None = None,
    labels: str | Path | None = None,
    detections: str | Path | None = None,
    protocol: Protocol | None = None,
    rules: kitti.Rules = "current",
    classes: Sequence[str] | None = None,
    mapping: Mapping[str, str] | None = None,
    bootstrap: int = 0,
    recall_curve: bool = False,
    engine: str | None = None,
    threads: int | None = None,
    trust_model: bool = False,
) -> Report:
    """Say how good a detector is, by the rules of KITTI, VOC or COCO.

    >>> report = squeezedet.evaluate("best.bundle", "roads")  # doctest: +SKIP
    >>> print(report.text())  # doctest: +SKIP

    Every detection counts, whatever its score; a model reports at most the best 64 of an image,
    after suppression.

    Args:
        model: a name of ours, a file, or a loaded ``Detector``; None with ``detections``.
        data: labelled images: a KITTI, VOC, COCO or YOLO folder or file.
        split: of the data, or ``all``. By default test if there is one, else val; training
            images only when asked for.
        labels: labels without images, in place of ``data``: a folder of KITTI labels, a VOC
            folder or a COCO file.
        detections: what was found, in place of a model: COCO's JSON, a folder of VOC's
            CLASS.txt, or of KITTI's ID.txt.
        protocol: whose rules. By default KITTI's for KITTI's classes in a KITTI folder, VOC's
            for VOC's files against VOC's labels, and COCO's for anything else.
        rules: KITTI's: of the ``paper``'s tool (2016), or the server's ``current`` ones.
        classes: the classes to evaluate. By default the model's, or those of the files.
        mapping: type of the labels -> class, ``ignore`` or ``background``.
        bootstrap: 95 % intervals by so many draws of the images (KITTI and VOC).
        recall_curve: also recall against the number of boxes (with a model; twice the time).
        engine: what runs the model; see ``squeezedet.load``.
        threads: processor threads.
        trust_model: open a program that was not exported here; see ``squeezedet.load``.

    Raises:
        UsageError: arguments that do not go together.
        DataError: labels, images or detections that cannot be used, or with no class in common.
        ModelError: the model cannot be used.
        MissingExtraError: COCO's protocol wants faster-coco-eval.
    """
    if (data is None) == (labels is None):
        raise UsageError("give either `data`, or `labels` without images")
    if (model is None) == (detections is None):
        raise UsageError("give either `model` or `detections`")
    if protocol == "coco":
        _check_coco(bootstrap)
    if detections is not None:
        given, labelled, notes = _of_files(data, labels, detections, split, classes, mapping)
        raw_voc = labelled.layout == "voc" and labelled.images is None
        chosen: Protocol = protocol or ("voc" if raw_voc else _protocol(labelled.layout, given.names))
        curve, score, subject = None, SHOWN_SCORE, str(detections)
    else:
        if model is None or data is None:
            raise UsageError("`model` needs images: give `data`")
        detector = _loaded(model, engine, threads, trust_model)
        labelled, chosen, notes = _of_data(Path(data), split, detector, protocol, classes, mapping)
        if chosen == "coco":
            _check_coco(bootstrap)
        found, curve = run_detector(labelled, detector, with_curve=recall_curve)
        evaluated = kitti.rules_for(classes if classes is not None else detector.names)
        given = EvaluationInput(labelled, found, evaluated)
        score, subject = detector.card.selection.score, detector.card.name
    result, intervals = apply_protocol(given, chosen, rules, bootstrap)
    return Report(
        title=f"{subject} on {data or labels} ({labelled.split})",
        input=given,
        result=result,
        intervals=intervals,
        curve=curve,
        score=score,
        notes=(*labelled.notes, *notes),
    )


def _check_coco(bootstrap: int) -> None:
    """Before long work: whether COCO's protocol can be used."""
    coco.check_installed()
    if bootstrap:
        raise UsageError("`bootstrap` works with the protocols kitti and voc")


def _loaded(model: str | Path | Detector, engine: str | None, threads: int | None, trust_model: bool) -> Detector:
    from squeezedet.runtime.detector import Detector, load

    if isinstance(model, Detector):
        return model
    return load(str(model), engine=engine, threads=threads, trust_model=trust_model)


def _of_data(
    data: Path,
    split: str | None,
    detector: Detector,
    protocol: Protocol | None,
    classes: Sequence[str] | None,
    mapping: Mapping[str, str] | None,
) -> tuple[Labels, Protocol, list[str]]:
    """The labels for a detector, by which protocol, and what a reader should know."""
    _check_classes(classes or (), detector.names)
    chosen: Protocol = protocol or _protocol(detect_layout(data), detector.names)
    labelled = read_data(data, split, classes, mapping, raw=chosen == "kitti")
    return labelled, chosen, compare_names(detector.names, labelled, f"the model {detector.card.name}")


def _check_classes(classes: Sequence[str], names: Sequence[str]) -> None:
    known = {name.lower() for name in names}
    if absent := [name for name in classes if name.lower() not in known]:
        raise UsageError(f"`classes`: there is no class {absent[0]!r}; there are {', '.join(names)}")


def _of_files(
    data: str | Path | None,
    labels: str | Path | None,
    detections: str | Path,
    split: str | None,
    classes: Sequence[str] | None,
    mapping: Mapping[str, str] | None,
) -> tuple[EvaluationInput, Labels, list[str]]:
    """Labels and detections from files, and what a reader should know."""
    file = _coco_file(Path(data), detections, split) if data is not None else None
    if file is not None and mapping:
        raise UsageError("`mapping` works with a model, or with labels that are not COCO's")
    if file is not None:  # its own ids are those of the records
        labelled = read_only_labels(file)
    elif data is not None and _has_images(Path(data)):
        labelled = read_data(Path(data), split, classes, mapping, raw=True)
    elif mapping:
        raise UsageError("`mapping` needs `data`")
    else:
        labelled = read_only_labels(Path(str(data or labels)), split)
    given, notes = read_detections(Path(detections), labelled)
    if classes is not None:
        _check_classes(classes, given.names)
        wanted = {name.lower() for name in classes}
        given = replace(given, classes=[rule for rule in given.classes if rule.name.lower() in wanted])
    return given, labelled, notes


def _coco_file(data: Path, detections: str | Path, split: str | None) -> Path | None:
    """The JSON of a COCO data set, when COCO's records are to be compared with it."""
    if Path(detections).suffix != ".json" or not data.exists() or detect_layout(data) != "coco":
        return None
    files = label_files(data)
    named = choose_split(files, split, data)
    if named not in files:
        raise DataError(f"{data}: no split {named!r}; it has {', '.join(files)}")
    return files[named]


def _has_images(path: Path) -> bool:
    """Whether a data set is more than labels of KITTI or VOC."""
    return not (path / "Annotations").is_dir() and not ((path / "label_2").is_dir() and not (path / "image_2").is_dir())


def _protocol(layout: Layout, names: Sequence[str]) -> Protocol:
    """Whose rules fit labels and classes."""
    own = {rule.name for rule in kitti.KITTI_CLASSES}
    return "kitti" if layout == "kitti" and {n.lower() for n in names} <= own else "coco"


def apply_protocol(
    given: EvaluationInput, protocol: Protocol, rules: kitti.Rules = "current", draws: int = 0
) -> tuple[Result, Intervals | None]:
    """The protocol's result and, with ``draws``, its bootstrap intervals.

    Raises:
        UsageError: intervals of COCO are asked for.
        DataError, MissingExtraError: see the protocols.
    """
    intervals = None
    if protocol == "kitti":
        pair = given.regions, given.detections, rules, given.classes
        if draws:
            intervals = kitti.intervals(*pair, draws=draws)
        return kitti.evaluate(*pair), intervals
    if protocol == "voc":
        truth = [voc.truth_of(objects, given.names) for objects in given.labels.truth]
        if draws:
            intervals = voc.intervals(truth, given.detections, given.names, draws)
        return voc.evaluate(truth, given.detections, given.names), intervals
    _check_coco(draws)
    labels = given.labels
    if labels.coco is not None and given.records is not None:
        return coco.evaluate(labels.coco, given.records), None
    records = coco.records_of(given.detections, given.names)
    return coco.evaluate(coco.labels_of(labels.truth, labels.ids, given.names), records), None
