"""``squeezedet.evaluate``: how good a detector, or files of detections, are on labelled images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from squeezedet.data.coco import label_files
from squeezedet.data.dataset import Dataset, Layout, class_map_for, detect_layout, read_dataset
from squeezedet.data.folders import read_ids
from squeezedet.data.kitti import KITTI_TYPES, read_labels
from squeezedet.data.sample import Objects, ReadResult, Sample, check_box, is_dont_care
from squeezedet.data.voc import read_annotation
from squeezedet.detections import Detections
from squeezedet.errors import DataError, UsageError
from squeezedet.evaluation import coco, kitti, voc
from squeezedet.evaluation.analysis import RecallCurve, first_ranks, recall_curve
from squeezedet.evaluation.kitti import ClassRule
from squeezedet.evaluation.matching import Intervals
from squeezedet.evaluation.report import EvaluationInput, Labels, Report, Result
from squeezedet.files import IMAGE_SUFFIXES
from squeezedet.media.images import read_image

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
    overlaps: Mapping[str, float] | None = None,
    bootstrap: int = 0,
    recall_curve: bool = False,
    engine: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    trust_model: bool = False,
) -> Report:
    """Say how good a detector is, by the rules of KITTI, VOC or COCO.

    >>> report = squeezedet.evaluate("best.bundle", "roads")  # doctest: +SKIP
    >>> print(report.text())  # doctest: +SKIP

    Every detection counts, whatever its score, that the model reports after suppression: at most
    ``selection.top_n`` of an image, as its card says.

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
        overlaps: by KITTI's rules these classes alone, each at its overlap, as in ``{"car": 0.7, "tram": 0.5}``.
        bootstrap: 95 % intervals by so many draws of the images (KITTI and VOC).
        recall_curve: also recall against the number of boxes (with a model; twice the time).
        engine: what runs the model; see ``squeezedet.load``.
        device: in place of ``engine``: ``cuda``, ``cuda:N`` or ``mps`` for onnxruntime's provider on
            that GPU; ``cpu`` and ``auto`` for the file's own engine on the processor.
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
    if overlaps:
        if protocol not in (None, "kitti"):
            raise UsageError("`overlaps` works with the protocol kitti")
        protocol = "kitti"
    own_rules = _rules_at(overlaps or {})
    if protocol == "coco":
        _check_coco(bootstrap)
    if detections is not None:
        given, labelled, notes = _of_files(data, labels, detections, split, classes, mapping)
        raw_voc = labelled.layout == "voc" and labelled.images is None
        chosen: Protocol = protocol or ("voc" if raw_voc else _protocol(labelled.layout, given.names))
        curve, shown, subject = None, None, str(detections)
    else:
        if model is None or data is None:
            raise UsageError("`model` needs images: give `data`")
        detector = _loaded(model, engine=_engine_of(device, engine), threads=threads, trust_model=trust_model)
        labelled, chosen, notes = _of_data(Path(data), split, detector, protocol, classes, mapping)
        if chosen == "coco":
            _check_coco(bootstrap)
        found, curve = run_detector(labelled, detector, with_curve=recall_curve)
        evaluated = kitti.rules_for(classes if classes is not None else detector.names)
        given = EvaluationInput(labelled, found, evaluated)
        shown, subject = detector.card.selection.score, detector.card.name
    if own_rules:
        given = replace(given, classes=own_rules)
    result, intervals = apply_protocol(given, chosen, rules, bootstrap, shown)
    return Report(
        title=f"{subject} on {data or labels} ({labelled.split})",
        input=given,
        result=result,
        intervals=intervals,
        curve=curve,
        score=SHOWN_SCORE if shown is None else shown,
        notes=(*labelled.notes, *notes),
    )


def _check_coco(bootstrap: int) -> None:
    """Before long work: whether COCO's protocol can be used."""
    coco.check_installed()
    if bootstrap:
        raise UsageError("`bootstrap` works with the protocols kitti and voc")


def _loaded(model: str | Path | Detector, **options: Any) -> Detector:
    from squeezedet.runtime.detector import Detector, load

    return model if isinstance(model, Detector) else load(str(model), **options)


def _engine_of(device: str, engine: str | None) -> str | None:
    """The engine that computes on a device; None for the file's own on the processor."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?|mps", device, re.ASCII):
        raise UsageError(f"`device`: {device!r} is none of auto, cpu, cuda, cuda:N, mps")
    if device in ("auto", "cpu"):
        return engine
    if engine is not None:
        raise UsageError("`device` stands in place of `engine`: give one of the two")
    return f"onnxruntime:{device.replace('mps', 'coreml')}"


def _rules_at(overlaps: Mapping[str, float]) -> list[ClassRule]:
    """Rules of classes that are evaluated at overlaps of the caller's."""
    for name, overlap in overlaps.items():
        if not name or not 0 <= overlap < 1:
            raise UsageError(f"`overlaps`: {name}={overlap:g}: write a class, and an overlap from 0 to below 1")
    return [replace(kitti.rules_for([name])[0], name=name, min_overlap=overlap) for name, overlap in overlaps.items()]


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
    given: EvaluationInput,
    protocol: Protocol,
    rules: kitti.Rules = "current",
    draws: int = 0,
    score: float | None = None,
) -> tuple[Result, Intervals | None]:
    """The protocol's result and, with ``draws``, its bootstrap intervals; KITTI's with precision and recall at a score.

    Raises:
        UsageError: intervals of COCO are asked for.
        DataError, MissingExtraError: see the protocols.
    """
    intervals = None
    if protocol == "kitti":
        pair = given.regions, given.detections, rules, given.classes
        if draws:
            intervals = kitti.intervals(*pair, draws=draws)
        return kitti.evaluate(*pair, score=score), intervals
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


# ------------------------------------------------------------------ labels


def choose_split(names: Iterable[str], asked: str | None, where: Path) -> str:
    """The split to evaluate on: what was asked for, else test, else val, else all if none is named.

    Raises:
        DataError: there is neither test nor val, and training images must be asked for.
    """
    if asked is not None:
        return asked
    names = list(names)
    if where.suffix == ".json" and len(names) == 1:  # to name a COCO file is to ask for it
        return names[0]
    known = [name for name in names if name != "all"]
    for name in ("test", "val"):
        if name in known:
            return name
    if known:
        raise DataError(f"{where}: no split test or val; it has {', '.join(known)}: say which with `split`")
    return "all"


def read_data(
    path: Path,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    mapping: Mapping[str, str] | None = None,
    *,
    raw: bool = False,
) -> Labels:
    """Labelled images of any layout.

    Args:
        path: folder or file, see ``squeezedet.data.dataset``.
        split: of the data; of a KITTI folder also the path of a list of ids. None: see
            ``choose_split``.
        classes: the classes to evaluate; None for those of the data.
        mapping: type -> class, ``ignore`` or ``background``.
        raw: without ``classes`` and ``mapping`` keep KITTI's types as the labels have them, as its protocol wants them.

    Raises:
        DataError: see ``read_dataset``; there is no such split, or none but train.
        UsageError: see ``class_map_for``.
    """
    listing = Path(split) if split is not None and Path(split).is_file() else None
    dataset = read_dataset(path, listing=listing)
    named = str(listing) if listing else choose_split(dataset.splits, split, path)
    samples = dataset.samples() if listing else dataset.split(named)
    # That KITTI's labels hold 3D boxes, too, is known.
    notes = [*(dataset.notes if dataset.layout != "kitti" else ()), *_of_training(dataset, samples, named)]
    truth = [sample.objects for sample in samples]
    names: Sequence[str] = [t for t in dataset.types if not is_dont_care(t)]
    if classes is not None or mapping or (dataset.layout == "kitti" and not raw):
        class_map = class_map_for(dataset, classes, mapping)
        truth, names = [class_map.map_types(objects) for objects in truth], class_map.names
    return Labels(
        ids=[sample.id for sample in samples],
        images=[sample.image for sample in samples],
        truth=truth,
        names=names,
        layout=dataset.layout,
        split=named,
        notes=tuple(notes),
    )


def _of_training(dataset: Dataset, samples: Sequence[Sample], split: str) -> list[str]:
    """A warning where images to learn from are evaluated."""
    learned = {sample.image.resolve() for sample in dataset.splits.get("train", ())}
    both = sum(sample.image.resolve() in learned for sample in samples)
    if not both:
        return []
    return [
        f"{both} of the {len(samples)} images of split {split!r} are in split 'train': "
        "what a detector learned from says little about how good it is"
    ]


def read_only_labels(path: Path, split: str | None = None) -> Labels:
    """Labels without images: a folder of KITTI's or VOC's, or a COCO file.

    Raises:
        DataError: there are none, or a file is malformed.
    """
    if path.is_file():
        labels = coco.read_labels(path)
        truth = coco.objects_of(labels)
        names = [str(c["name"]) for c in labels["categories"]]
        ids = [image["file_name"] for image in labels["images"]]
        return Labels(ids, None, truth, names, "coco", "all", labels)
    if (path / "Annotations").is_dir():
        split, ids = _ids_of_split(path, split, path / "Annotations", ".xml")
        truth = [_voc_labels(path / "Annotations" / f"{i}.xml") for i in ids]
        names = list(dict.fromkeys(t for o in truth for t in o.types))
        return Labels(ids, None, truth, names, "voc", split)
    folder = path / "label_2" if (path / "label_2").is_dir() else path
    split, ids = _ids_of_split(path, split, folder, ".txt")
    truth = [read_labels(folder / f"{i}.txt") for i in ids]
    names = list(dict.fromkeys(t for o in truth for t in o.types if not is_dont_care(t)))
    return Labels(ids, None, truth, names, "kitti", split)


def _ids_of_split(root: Path, split: str | None, labels: Path, suffix: str) -> tuple[str, list[str]]:
    """The split of labels without images, by a list ``SPLIT.txt`` or ``ImageSets/Main/SPLIT.txt``, and its ids."""
    folders = [folder for folder in (root, root / "ImageSets" / "Main") if folder != labels]
    known = [s for s in ("train", "val", "test") if any((folder / f"{s}.txt").is_file() for folder in folders)]
    split = choose_split(known, split, root)
    if split != "all":
        for listing in (*(folder / f"{split}.txt" for folder in folders), Path(split)):
            if listing.is_file():
                return split, read_ids(listing)
        raise DataError(f"{root}: no {split}.txt that lists the images of split {split!r}")
    ids = sorted(path.stem for path in labels.glob(f"*{suffix}"))
    if not ids:
        raise DataError(f"{labels}: no labels (*{suffix})")
    return split, ids


def _voc_labels(path: Path) -> Objects:
    """An annotation whose boxes stay as they are, as the files of detections have them."""
    found, _ = read_annotation(path, ReadResult())
    for one in found:
        check_box(one.box, f"{path}:{one.line}")
    difficult = np.array([one.difficult for one in found], dtype=bool)
    xyxy = np.array([one.box for one in found], np.float32).reshape(-1, 4)
    zeros = np.zeros(len(found), np.float32)
    return Objects(tuple(one.name for one in found), xyxy, zeros, zeros.astype(np.int64), difficult)


# ------------------------------------------------------------------ detections


def run_detector(
    labels: Labels, detector: Detector, *, with_curve: bool = False
) -> tuple[list[Detections], RecallCurve | None]:
    """What a detector finds in each image, whatever its score; also recall against boxes.

    Raises:
        DataError: an image cannot be read.
    """
    rules = kitti.rules_for(detector.names)
    found, ranks = [], []
    for path, objects in zip(labels.images or (), labels.truth, strict=True):
        frame = read_image(path)
        found.append(detector.detect(frame, score=0.0))
        if with_curve:
            raw = detector.raw(frame)
            boxes = Detections(raw.xyxy, raw.score, raw.class_id, detector.names)
            ranks.append(first_ranks(objects, boxes, rules))
    return found, recall_curve(ranks) if with_curve else None


def read_detections(path: Path, labels: Labels) -> tuple[EvaluationInput, list[str]]:
    """Detections from files: COCO's JSON, VOC's file for each class, or KITTI's for each image.

    Returns:
        the input of the evaluation, its classes those of both sides; and what a reader should
        know, one sentence each.

    Raises:
        DataError: they are none of these, malformed, or of images without labels.
    """
    if path.is_file() or path.suffix == ".json":
        return _from_coco(path, labels)
    ids = [Path(i).stem if Path(i).suffix.lower() in IMAGE_SUFFIXES else i for i in labels.ids]
    by_image = labels.layout == "kitti" or bool({p.stem for p in path.glob("*.txt")} & set(ids))
    if labels.layout == "voc" or not by_image:
        found = voc.read_detections(path, labels.ids, labels.names)
        classes = _union(found[0].names if found else (), labels.names)
        rules = [ClassRule(name, voc.MIN_OVERLAP) for name in classes]
        return EvaluationInput(labels, found, rules), []
    missing = len(ids) - len(kitti.result_files(path, ids))
    notes = [f"{missing} of {len(ids)} images have no result file: nothing found in them"]
    known: Sequence[str]
    if labels.layout == "kitti":
        known, rules = KITTI_TYPES, list(kitti.KITTI_CLASSES)
        own = [n for n in labels.names if n.lower() not in known]
        if own:  # not KITTI's own classes: evaluate those of the labels
            known, rules = _union(labels.names, known), kitti.rules_for(labels.names)
    else:
        known, rules = labels.names, kitti.rules_for(labels.names)
    found = kitti.read_results(path, ids, known)
    return EvaluationInput(labels, found, rules), notes if missing else []


def _from_coco(path: Path, labels: Labels) -> tuple[EvaluationInput, list[str]]:
    if labels.coco is None:
        images = [p.name for p in labels.images] if labels.images else labels.ids
        labels = replace(labels, coco=coco.labels_of(labels.truth, images, labels.names))
    assert labels.coco is not None  # noqa: S101 (for mypy)
    records, notes = coco.read_records(path, labels.coco)
    names = tuple(str(c["name"]) for c in labels.coco["categories"])
    own = labels.layout == "kitti"
    rules = kitti.rules_for(names) if own else [ClassRule(name, voc.MIN_OVERLAP) for name in names]
    return EvaluationInput(labels, coco.detections_of(labels.coco, records), rules, records), notes


def _union(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Names of both, those of the first first; compared without case."""
    names: dict[str, str] = {}
    for name in (*first, *sorted(second)):
        names.setdefault(name.lower(), name)
    return list(names.values())


def compare_names(found: Sequence[str], labels: Labels, what: str) -> list[str]:
    """What a reader should know about classes that only one side has; ``what`` is the side that found, in words.

    Raises:
        DataError: no type of the labels is a class of the detections.
    """
    counts = Counter(t.lower() for o in labels.truth for t in o.types if not is_dont_care(t))
    names = {name.lower() for name in found}
    rules = kitti.rules_for(found) if labels.layout == "kitti" else []
    alike = {name for rule in rules for name in rule.neighbours}  # no mistake to find nor to miss
    if counts and not names & counts.keys():
        raise DataError(
            f"{what} has the classes {', '.join(found)}, the labels {', '.join(labels.names)}: "
            "none in common; `mapping` says which of the labels is which class"
        )
    return [
        f"{name!r} is no class of {what}: its {counts[name.lower()]} objects count as nothing"
        for name in dict.fromkeys(labels.names)
        if name.lower() not in names | alike and counts[name.lower()]
    ]
