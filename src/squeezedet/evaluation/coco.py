"""COCO: the twelve numbers, by faster-coco-eval (the extra ``eval``).

Labels and detections are COCO's own dictionaries, as read from its JSON files or made of other labels.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from squeezedet.data.coco import box_of, fields_by_id, read_json, read_lists
from squeezedet.data.sample import Objects, boxes_only, is_dont_care
from squeezedet.detections import Detections
from squeezedet.errors import DataError, MissingExtraError
from squeezedet.evaluation.matching import Curve, per_class

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
Record = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class CocoResult:
    """The answer of the protocol.

    Attributes:
        counts: images, objects, ignored (crowds), detections.
        numbers: the twelve numbers, 0 to 1; None where no object is of the kind (COCO's -1).
        results: class -> AP and AP50; None for a class that was never detected.
        objects: class -> labelled objects that count.
        precision50: class -> precision at recall 0, 0.01, ..., 1 and IoU 0.5.
    """

    counts: Mapping[str, int]
    numbers: Mapping[str, float | None]
    results: Mapping[str, Mapping[str, float | None] | None]
    precision50: Mapping[str, Sequence[float]]
    objects: Mapping[str, int]

    @property
    def ap(self) -> dict[str, float | None]:
        """AP of each class; None for a class without an object, which has none."""
        return per_class(self.results, self.objects, lambda numbers: numbers["AP"])

    def curves(self) -> dict[str, dict[str, Curve]]:
        """Class -> overlap -> curve, of the classes that were detected."""
        recall = [k / 100 for k in range(101)]
        return {name: {"IoU 0.5": (recall, list(y))} for name, y in self.precision50.items()}

    def to_dict(self) -> Record:
        """Plain numbers, ready for JSON."""
        return {
            "protocol": "coco",
            "counts": dict(self.counts),
            "results": {name: r and dict(r) for name, r in self.results.items()},
            "numbers": dict(self.numbers),
        }


def labels_of(ground_truth: Sequence[Objects], files: Sequence[str], classes: Sequence[str]) -> Record:
    """Labels as a COCO dictionary.

    Every object of a class counts, but an ignored one is a crowd; a DontCare area is a crowd of
    every class: detections inside it count neither way. ``category_id`` and image ``id`` count
    from 1.
    """
    index = {name.lower(): k for k, name in enumerate(classes, start=1)}
    annotations: list[Record] = []
    for image_id, objects in enumerate(ground_truth, start=1):
        rows = zip(objects.types, objects.xyxy.tolist(), objects.ignored.tolist(), strict=True)
        for kind, (x1, y1, x2, y2), ignored in rows:
            region = is_dont_care(kind)
            known = [index[kind.lower()]] if kind.lower() in index else []
            annotations += [
                {
                    "id": len(annotations) + k,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(region or ignored),
                }
                for k, category in enumerate(index.values() if region else known, start=1)
            ]
    return {
        "images": [{"id": k, "file_name": name} for k, name in enumerate(files, start=1)],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(classes, start=1)],
    }


def records_of(detections: Sequence[Detections], classes: Sequence[str]) -> list[Record]:
    """Detections as COCO's records, unrounded; those of other classes are left out."""
    index = {name.lower(): k for k, name in enumerate(classes, start=1)}
    return [
        {
            "image_id": image_id,
            "category_id": index[d.name.lower()],
            "bbox": [d.xyxy[0], d.xyxy[1], d.xyxy[2] - d.xyxy[0], d.xyxy[3] - d.xyxy[1]],
            "score": d.score,
        }
        for image_id, boxes in enumerate(detections, start=1)
        for d in boxes
        if d.name.lower() in index
    ]


def read_labels(path: Path) -> Record:
    """Read a COCO annotation file.

    An annotation without ``area`` or ``id`` gets those of its box and place. An image without ``file_name``, which
    the original tools do not ask for, is called by its id.

    Raises:
        DataError: the file is missing or no JSON, lacks images, annotations or categories, or
            has a malformed annotation.
    """
    labels = read_lists(path)
    if not labels["images"]:
        raise DataError(f"{path}: no images")
    for image in labels["images"]:
        if isinstance(image, dict) and "id" in image:
            image.setdefault("file_name", str(image["id"]))
    known = {
        "image_id": fields_by_id(labels["images"], "file_name", f"{path}: image"),
        "category_id": fields_by_id(labels["categories"], "name", f"{path}: category"),
    }
    for number, record in enumerate(labels["annotations"]):
        _, _, width, height = box_of(record, f"{path}: annotation {number}", known)
        record.setdefault("area", width * height)
    return labels


def objects_of(labels: Record) -> list[Objects]:
    """The labels of each image of a COCO dictionary, as our own; a crowd is ignored."""
    names = {c["id"]: str(c["name"]) for c in labels["categories"]}
    return [
        boxes_only(
            [names[a["category_id"]] for a in some],
            _corners(some),
            np.array([bool(a.get("iscrowd")) for a in some], dtype=bool),
        )
        for some in _by_image(labels, labels["annotations"])
    ]


def detections_of(labels: Record, records: Sequence[Record]) -> list[Detections]:
    """Records, whose ids are those of the labels, as the detections of each image."""
    names = tuple(str(c["name"]) for c in labels["categories"])
    class_ids = {c["id"]: k for k, c in enumerate(labels["categories"])}
    return [
        Detections(
            _corners(some),
            np.array([r["score"] for r in some], np.float32),
            np.array([class_ids[r["category_id"]] for r in some], np.int64),
            names,
        )
        for some in _by_image(labels, records)
    ]


def _by_image(labels: Record, records: Sequence[Record]) -> Collection[list[Record]]:
    by_image: dict[Any, list[Record]] = {image["id"]: [] for image in labels["images"]}
    for record in records:
        by_image[record["image_id"]].append(record)
    return by_image.values()


def _corners(records: Sequence[Record]) -> Any:
    xywh = np.array([r["bbox"] for r in records], np.float64).reshape(-1, 4)
    return np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]).astype(np.float32)


def read_records(path: Path, labels: Record) -> tuple[list[Record], list[str]]:
    """Read COCO's result file, its images and categories as the labels number them.

    An image is named by the labels' id, or, where not all records are, by its file name, with or
    without folders and suffix; a record's own ``file_name`` goes first. A category is named by
    the labels' id, or by its name, as ``category_name`` or in place of the id.

    Returns:
        records with the labels' ``image_id`` and ``category_id``; and what a reader should know.

    Raises:
        DataError: the file is missing or no JSON list; a record is malformed, names an image or
            category that the labels do not have, or one that could be several.
    """
    records = read_json(path)
    if not isinstance(records, list):
        raise DataError(f"{path}: COCO detections are a list of records")
    for number, record in enumerate(records):
        box_of(record, f"{path}: record {number}", {})
        score = record.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise DataError(f"{path}: record {number}: its score is {score!r}, no finite number")
    found, notes = _with_images(path, records, labels)
    return _with_categories(path, found, labels, notes), notes


def _with_images(path: Path, records: Sequence[Record], labels: Record) -> tuple[list[Record], list[str]]:
    """The records with the labels' ``image_id``: by the first way of naming images that all of them follow."""
    ids: dict[Any, set[Any]] = {image["id"]: {image["id"]} for image in labels["images"]}
    texts = {str(key): hits for key, hits in ids.items()}
    names = _ids_by_name(labels)

    def by_id(record: Record) -> set[Any]:
        key = record["image_id"]
        return ids.get(key, set()) if "file_name" not in record and isinstance(key, int | str) else set()

    def by_name(record: Record, table: Mapping[str, set[Any]] = names) -> set[Any]:
        return next((table[name] for name in _names_of(_image_of(record)) if name in table), set())

    found = [by_id(record) for record in records]
    by_ids = all(found)
    if not by_ids:
        for table in (names, texts):
            found = [by_name(record, table) for record in records]
            if all(found):
                break
        else:
            found = [by_id(record) or by_name(record) for record in records]
    notes = []
    for number, (record, hits) in enumerate(zip(records, found, strict=True)):
        where = f"{path}: record {number}"
        if not hits:
            wanted = record.get("file_name") or record["image_id"]
            raise DataError(f"{where}: the labels have no image_id {wanted!r}, neither as id nor as file")
        if len(hits) > 1:
            raise DataError(
                f"{where}: {_image_of(record)!r} may be any of {len(hits)} images of the labels; give each record "
                "the `file_name` of its image"
            )
        if by_ids and by_name(record) not in (set(), hits):
            notes = ["image_id is taken for the labels' id; as a file name it would be another image"]
    return [{**r, "image_id": next(iter(hits))} for r, hits in zip(records, found, strict=True)], notes


def _ids_by_name(labels: Record) -> Mapping[str, set[Any]]:
    """What an image may be called -> the ids of those that are called so."""
    names: dict[str, set[Any]] = defaultdict(set)
    for image in labels["images"]:
        for name in _names_of(str(image.get("file_name", ""))):
            names[name].add(image["id"])
    return names


def _image_of(record: Record) -> str:
    return str(record.get("file_name") or record["image_id"])


def _names_of(name: str) -> list[str]:
    """What an image may be called, the most exact first; 42 is 000042, too."""
    parts = name.replace("\\", "/").removeprefix("./").split("/")
    names = []
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        names += [tail, tail.rpartition(".")[0] if "." in parts[-1] else tail]
    stem = names[-1] if names else ""
    if stem.isascii() and stem.isdecimal():
        names.append(f"number {int(stem)}")
    return [n for n in dict.fromkeys(names) if n]


def _with_categories(path: Path, records: Sequence[Record], labels: Record, notes: list[str]) -> list[Record]:
    known = {category["id"] for category in labels["categories"]}
    by_name = {str(c["name"]).lower(): c["id"] for c in labels["categories"]}
    found, lost = [], Counter[str]()
    for number, record in enumerate(records):
        category = record["category_id"]
        name = record.get("category_name")
        if name is None and isinstance(category, str) and category not in known:
            name = category
        if name is not None:
            if str(name).lower() not in by_name:
                lost[str(name)] += 1
                continue
            category = by_name[str(name).lower()]
        if not isinstance(category, int | str) or category not in known:
            ids = ", ".join(f"{c['id']} {c['name']}" for c in labels["categories"][:20])
            raise DataError(
                f"{path}: record {number}: the labels have no category_id {category!r}; their categories are {ids}"
            )
        found.append({**record, "category_id": category})
    if lost and not found:
        raise DataError(
            f"{path}: its categories are {', '.join(lost)}, those of the labels "
            f"{', '.join(str(c['name']) for c in labels['categories'])}: none in common"
        )
    notes += [f"{n} detections of {name!r}, no category of the labels, are left out" for name, n in lost.items()]
    return found


def check_installed() -> None:
    """Before long work: whether faster-coco-eval is there.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("faster_coco_eval") is None:
        raise MissingExtraError("the COCO protocol", "eval")


def evaluate(labels: Record, records: Sequence[Record]) -> CocoResult:
    """The twelve numbers for boxes, of COCO's annotation dictionary and result records.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
    """
    check_installed()
    from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]

    categories = {c["id"]: c["name"] for c in labels["categories"]}
    objects = dict.fromkeys(categories.values(), 0)
    for annotation in labels["annotations"]:
        objects[categories[annotation["category_id"]]] += not annotation.get("iscrowd")
    counts = {
        "images": len(labels["images"]),
        "objects": sum(objects.values()),
        "ignored": len(labels["annotations"]) - sum(objects.values()),
        "detections": len(records),
    }
    if not records:
        none = dict.fromkeys(categories.values())
        value = 0.0 if any(objects.values()) else None
        return CocoResult(counts, dict.fromkeys(NUMBERS, value), none, {}, objects)
    labels, records = _with_numbers(labels, records)
    categories = {c["id"]: c["name"] for c in labels["categories"]}
    truth = COCO(labels)
    evaluator = COCOeval_faster(truth, truth.loadRes(list(records)), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    numbers = dict(zip(NUMBERS, (_number(v) for v in evaluator.stats), strict=False))
    detected = {record["category_id"] for record in records}
    # precision: (10 IoU, 101 recalls, classes, 4 areas, 3 numbers of detections)
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    results: dict[str, Mapping[str, float | None] | None] = {}
    precision50 = {}
    for k, category in enumerate(evaluator.params.catIds):
        name = categories[category]
        results[name] = None
        if category in detected:
            results[name] = {"AP": _mean(precision[:, :, k]), "AP50": _mean(precision[0, :, k])}
            precision50[name] = precision[0, :, k].clip(0).tolist()
    return CocoResult(counts, numbers, results, precision50, objects)


def _with_numbers(labels: Record, records: Sequence[Record]) -> tuple[Record, Sequence[Record]]:
    """The same with ids that faster-coco-eval takes: whole numbers, those of the annotations from 1 and each once."""
    for part, field in (("images", "image_id"), ("categories", "category_id")):
        ids = [item["id"] for item in labels[part]]
        if all(isinstance(i, int) for i in ids):
            continue
        numbers = {key: number for number, key in enumerate(ids, start=1)}
        labels = {
            **labels,
            part: [{**item, "id": numbers[item["id"]]} for item in labels[part]],
            "annotations": [{**a, field: numbers[a[field]]} for a in labels["annotations"]],
        }
        records = [{**r, field: numbers[r[field]]} for r in records]
    numbered = [{**a, "id": number} for number, a in enumerate(labels["annotations"], start=1)]
    return {**labels, "annotations": numbered}, records


def _mean(values: Any) -> float | None:
    real = values[values > -1]
    return float(real.mean()) if real.size else None


def _number(value: float) -> float | None:
    return None if value < 0 else float(value)
