"""What is evaluated: labels and detections of the same images, from a detector or from files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from squeezedet.data.dataset import Dataset, Layout, class_map_for, read_dataset
from squeezedet.data.folders import read_ids
from squeezedet.data.kitti import KITTI_TYPES, read_labels
from squeezedet.data.sample import DONT_CARE, ClassMap, Objects, ReadResult, Sample, check_box, is_dont_care
from squeezedet.data.voc import read_annotation
from squeezedet.detections import Detections
from squeezedet.errors import DataError
from squeezedet.evaluation import coco, kitti, voc
from squeezedet.evaluation.analysis import RecallCurve, first_ranks, recall_curve
from squeezedet.evaluation.kitti import ClassRule
from squeezedet.media.images import read_image

if TYPE_CHECKING:
    from squeezedet.runtime.detector import Detector


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The labelled side.

    Attributes:
        ids: name of each image.
        images: path of each image; None where only labels were given.
        truth: the labels of each image. What counts neither way is ``ignored`` there (VOC's
            difficult, COCO's crowd) or a DontCare area.
        names: type names of the data.
        layout: of the labels.
        split: which split they are.
        coco: the labels as COCO has them, when they came from a COCO file.
        notes: what a reader should know, one sentence each.
    """

    ids: Sequence[str]
    images: Sequence[Path] | None
    truth: Sequence[Objects]
    names: Sequence[str]
    layout: Layout
    split: str
    coco: coco.Record | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationInput:
    """Labels, what was found in each of their images, and the classes with the overlap of a match.

    Attributes:
        records: the detections as COCO has them, when they came from a COCO file.
    """

    labels: Labels
    detections: Sequence[Detections]
    classes: Sequence[ClassRule]
    records: list[coco.Record] | None = None

    @property
    def names(self) -> list[str]:
        """The class names."""
        return [rule.name for rule in self.classes]

    @property
    def regions(self) -> list[Objects]:
        """The labels with a DontCare area in place of each ignored object."""
        return [
            replace(
                objects,
                types=tuple(np.where(objects.ignored, DONT_CARE, np.array(objects.types, dtype=object)).tolist()),
            )
            for objects in self.labels.truth
        ]


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
        truth, names = [map_types(objects, class_map) for objects in truth], class_map.names
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


def map_types(objects: Objects, class_map: ClassMap) -> Objects:
    """Labels whose types are class names where they are learned, and DontCare for regions.

    Any other type keeps its name.
    """
    rows = zip(
        objects.types,
        class_map.class_ids(objects.types).tolist(),
        class_map.is_region(objects.types).tolist(),
        strict=True,
    )
    types = (DONT_CARE if region else class_map.names[index] if index >= 0 else kind for kind, index, region in rows)
    return replace(objects, types=tuple(types))


def read_only_labels(path: Path, split: str | None = None) -> Labels:
    """Labels without images: a folder of KITTI's or VOC's, or a COCO file.

    Raises:
        DataError: there are none, or a file is malformed.
    """
    if path.is_file():
        labels = coco.read_labels(path)
        truth = coco.objects_of(labels)
        names = [str(c["name"]) for c in labels["categories"]]
        ids = [str(image.get("file_name", image["id"])) for image in labels["images"]]
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
    ids = [Path(i).stem for i in labels.ids]
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
