"""From labels and detections to everything that a report shows, whatever the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.errors import UsageError
from squeezedet.evaluation import coco, kitti, voc
from squeezedet.evaluation.bootstrap import Intervals, kitti_intervals, voc_intervals
from squeezedet.evaluation.kitti import ClassRule
from squeezedet.evaluation.summary import Result


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What is to be judged.

    Attributes:
        ids: name of each image.
        images: path of each image; None where only labels were given.
        truth: the labels of each image; what a protocol ignores is a DontCare area here.
        detections: what was found in each image.
        classes: the classes to judge.
        voc: the labels as VOC has them, when they came from VOC files.
        coco: labels and records as COCO has them, when they came from COCO files.
    """

    ids: Sequence[str]
    images: Sequence[Path] | None
    truth: Sequence[Objects]
    detections: Sequence[Detections]
    classes: Sequence[ClassRule]
    voc: Sequence[voc.VocObjects] | None = None
    coco: tuple[coco.Record, list[coco.Record]] | None = None

    @property
    def names(self) -> list[str]:
        """The class names."""
        return [rule.name for rule in self.classes]


def judge(
    material: Material, protocol: str, rules: kitti.Rules, draws: int = 0
) -> tuple[Result, Intervals | None]:
    """The protocol's answer and, with ``draws``, its bootstrap intervals.

    Raises:
        UsageError: intervals of COCO are asked for.
        DataError, MissingExtraError: see the protocols.
    """
    if protocol == "kitti":
        sides = material.truth, material.detections, rules
        intervals = (
            kitti_intervals(*sides, classes=material.classes, draws=draws) if draws else None
        )
        return kitti.evaluate(*sides, material.classes), intervals
    if protocol == "voc":
        return _judge_voc(material, draws)
    if draws:
        raise UsageError("--bootstrap works with the protocols kitti and voc")
    labels, records = material.coco or (
        coco.labels_of(material.truth, material.ids, material.names),
        coco.records_of(material.detections, material.names),
    )
    return coco.evaluate(labels, records), None


def _judge_voc(material: Material, draws: int) -> tuple[Result, Intervals | None]:
    truth = material.voc or [voc.from_kitti(o, material.names) for o in material.truth]

    def judge_images(index: Sequence[int]) -> voc.VocResult:
        found = [material.detections[i] for i in index]
        return voc.evaluate([truth[i] for i in index], found, material.names)

    everything = range(len(truth))
    intervals = voc_intervals(judge_images, len(truth), draws) if draws else None
    return judge_images(everything), intervals


def objects_of_voc(truth: voc.VocObjects) -> Objects:
    """VOC labels for the error analysis: difficult objects become DontCare areas."""
    types = tuple(
        "DontCare" if difficult else name
        for name, difficult in zip(truth.types, truth.difficult.tolist(), strict=True)
    )
    return _plain(types, truth.xyxy)


def material_of_coco(labels: coco.Record, records: list[coco.Record]) -> Material:
    """COCO's dictionaries for the error analysis: crowds become DontCare areas."""
    categories = {c["id"]: str(c["name"]) for c in labels["categories"]}
    names = tuple(categories.values())
    class_ids = {category: k for k, category in enumerate(categories)}
    boxes: dict[Any, list[coco.Record]] = {image["id"]: [] for image in labels["images"]}
    found: dict[Any, list[coco.Record]] = {image["id"]: [] for image in labels["images"]}
    for annotation in labels["annotations"]:
        boxes[annotation["image_id"]].append(annotation)
    for record in records:
        found[record["image_id"]].append(record)
    return Material(
        ids=[str(i.get("file_name", i["id"])) for i in labels["images"]],
        images=None,
        truth=[
            _plain(
                tuple(
                    "DontCare" if a.get("iscrowd") else categories[a["category_id"]] for a in some
                ),
                _corners(some),
            )
            for some in boxes.values()
        ],
        detections=[
            Detections(
                _corners(some),
                np.array([r["score"] for r in some], np.float32),
                np.array([class_ids[r["category_id"]] for r in some], np.int64),
                names,
            )
            for some in found.values()
        ],
        classes=[ClassRule(name, voc.MIN_OVERLAP) for name in names],
        coco=(labels, records),
    )


def _corners(records: Sequence[coco.Record]) -> Any:
    xywh = np.array([r["bbox"] for r in records], np.float64).reshape(-1, 4)
    return np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]).astype(np.float32)


def _plain(types: tuple[str, ...], xyxy: Any) -> Objects:
    zeros = np.zeros(len(types), np.float32)
    return Objects(types, xyxy, zeros, zeros.astype(np.int64))
