"""COCO: the twelve numbers, by faster-coco-eval (the extra ``eval``).

Labels and detections are COCO's own dictionaries, as read from its JSON files or
made from KITTI labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squeezedet.data.coco import read_json
from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.errors import DataError, MissingExtraError
from squeezedet.evaluation.matching import DONT_CARE

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
Record = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class CocoResult:
    """The answer of the protocol.

    Attributes:
        counts: images, objects, ignored (crowds), detections.
        numbers: the twelve numbers, 0 to 1; None where no object is of the kind (COCO's -1).
        results: class -> AP and AP50; None for a class that was never detected.
        precision50: class -> precision at recall 0, 0.01, ..., 1 and IoU 0.5.
    """

    counts: Mapping[str, int]
    numbers: Mapping[str, float | None]
    results: Mapping[str, Mapping[str, float | None] | None]
    precision50: Mapping[str, Sequence[float]]

    def to_dict(self) -> Record:
        """Plain numbers, ready for JSON."""
        return {
            "protocol": "coco",
            "counts": dict(self.counts),
            "results": {name: r and dict(r) for name, r in self.results.items()},
            "numbers": dict(self.numbers),
        }


def labels_of(
    ground_truth: Sequence[Objects], ids: Sequence[str], classes: Sequence[str]
) -> Record:
    """KITTI labels as a COCO dictionary.

    Every object of a class counts; a DontCare area is a crowd of every class, so
    detections inside it count neither way. ``category_id`` and ``image id`` count from 1.
    """
    index = {name.lower(): k for k, name in enumerate(classes, start=1)}
    annotations: list[Record] = []
    for image_id, objects in enumerate(ground_truth, start=1):
        for kind, box in zip(objects.types, objects.xyxy.tolist(), strict=True):
            crowd = kind.lower() == DONT_CARE
            known = kind.lower() in index
            for category in index.values() if crowd else [index[kind.lower()]] if known else []:
                annotations.append(
                    _annotation(len(annotations) + 1, image_id, category, box, crowd)
                )
    return {
        "images": [{"id": k, "file_name": i} for k, i in enumerate(ids, start=1)],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(classes, start=1)],
    }


def _annotation(number: int, image: int, category: int, box: list[float], crowd: bool) -> Record:
    x1, y1, x2, y2 = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": int(crowd),
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

    An annotation without ``area`` or ``id`` gets those of its box and place.

    Raises:
        DataError: the file is missing or no JSON, lacks images, annotations or categories, or
            has a malformed annotation.
    """
    labels = read_json(path)
    parts = ("images", "annotations", "categories")
    if not isinstance(labels, dict) or not all(isinstance(labels.get(p), list) for p in parts):
        raise DataError(f"{path}: COCO labels hold the lists {', '.join(parts)}")
    if not labels["images"]:
        raise DataError(f"{path}: no images")
    for part in ("images", "categories"):
        if not all(isinstance(item, dict) and "id" in item for item in labels[part]):
            raise DataError(f"{path}: one of the {part} has no id")
    if not all("name" in category for category in labels["categories"]):
        raise DataError(f"{path}: one of the categories has no name")
    known = _known(labels)
    for number, record in enumerate(labels["annotations"]):
        _check(record, f"{path}: annotation {number}", known, extra=())
        record.setdefault("area", record["bbox"][2] * record["bbox"][3])
        record.setdefault("id", number + 1)
    return labels


def read_records(path: Path, labels: Record) -> list[Record]:
    """Read COCO's result file.

    Raises:
        DataError: the file is missing or no JSON list, or a record is malformed, names an
            image or category that the labels do not have, or has no finite box and score.
    """
    records = read_json(path)
    if not isinstance(records, list):
        raise DataError(f"{path}: COCO detections are a list of records")
    known = _known(labels)
    for number, record in enumerate(records):
        _check(record, f"{path}: record {number}", known, extra=("score",))
    return records


def _known(labels: Record) -> dict[str, set[Any]]:
    """The ids that a record's ``image_id`` and ``category_id`` may have."""
    parts = (("image_id", "images"), ("category_id", "categories"))
    return {field: {item["id"] for item in labels[part]} for field, part in parts}


def _check(record: Any, where: str, known: dict[str, set[Any]], extra: tuple[str, ...]) -> None:
    needed = ("image_id", "category_id", "bbox", *extra)
    missing = [k for k in needed if not isinstance(record, dict) or k not in record]
    if missing:
        raise DataError(f"{where} has no {missing[0]}")
    box = record["bbox"]
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(f"{where}: bbox is x, y, width, height")
    numbers = [*box, *(record[k] for k in extra)]
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in numbers):
        raise DataError(f"{where}: a value is no finite number")
    if box[2] < 0 or box[3] < 0:
        raise DataError(f"{where}: the box has a negative size")
    for field, ids in known.items():
        if record[field] not in ids:
            raise DataError(f"{where}: the labels have no {field} {record[field]!r}")


def evaluate(labels: Record, records: Sequence[Record]) -> CocoResult:
    """The twelve numbers for boxes.

    Args:
        labels: COCO's annotation dictionary.
        records: COCO's result records.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("the COCO protocol", "eval") from error
    categories = {c["id"]: c["name"] for c in labels["categories"]}
    crowds = sum(bool(a.get("iscrowd")) for a in labels["annotations"])
    counts = {
        "images": len(labels["images"]),
        "objects": len(labels["annotations"]) - crowds,
        "ignored": crowds,
        "detections": len(records),
    }
    if not records:
        none = dict.fromkeys(categories.values())
        return CocoResult(counts, dict.fromkeys(NUMBERS, 0.0), none, {})
    truth = COCO(labels)
    judge = COCOeval_faster(truth, truth.loadRes(list(records)), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    numbers = dict(zip(NUMBERS, (_number(v) for v in judge.stats), strict=False))
    detected = {record["category_id"] for record in records}
    # precision: (10 IoU, 101 recalls, classes, 4 areas, 3 numbers of detections)
    precision = judge.eval["precision"][:, :, :, 0, -1]
    results = {
        categories[category]: {
            "AP": _number(_mean(precision[:, :, k])),
            "AP50": _number(_mean(precision[0, :, k])),
        }
        if category in detected
        else None
        for k, category in enumerate(judge.params.catIds)
    }
    precision50 = {
        categories[category]: precision[0, :, k].clip(0).tolist()
        for k, category in enumerate(judge.params.catIds)
        if category in detected
    }
    return CocoResult(counts, numbers, results, precision50)


def _mean(values: Any) -> float:
    real = values[values > -1]
    return float(real.mean()) if real.size else -1.0


def _number(value: float) -> float | None:
    return None if value < 0 else float(value)
