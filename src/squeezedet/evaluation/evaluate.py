"""From labels and detections to everything that a report shows, whatever the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.errors import UsageError
from squeezedet.evaluation import coco, kitti, voc
from squeezedet.evaluation.bootstrap import Intervals, kitti_intervals, voc_intervals
from squeezedet.evaluation.coco import CocoResult
from squeezedet.evaluation.kitti import ClassRule, KittiResult, LevelResult
from squeezedet.evaluation.voc import VocResult

# ---- summary: A result as the rows of a table, and what a reader should know about it.

Result = KittiResult | VocResult | CocoResult
Rows = list[list[str]]
# With fewer objects the protocol's 41 recalls are not all reached, even by a perfect detector.
ENOUGH_OBJECTS = 41


def rows(result: Result, intervals: Intervals | None = None) -> Rows:
    """Header and one row per class, means last; percentages, intervals in brackets."""
    bounds = intervals.bounds if intervals else {}
    if isinstance(result, KittiResult):
        return _kitti_rows(result, bounds)
    if isinstance(result, VocResult):
        return _voc_rows(result, bounds)
    return _coco_rows(result)


def _percent(value: float | None, bound: tuple[float, float] | None = None) -> str:
    if value is None:
        return "-"
    text = f"{100 * value:.1f}"
    return f"{text} [{100 * bound[0]:.1f}, {100 * bound[1]:.1f}]" if bound else text


def _kitti_rows(result: KittiResult, bounds: Mapping[str, tuple[float, float]]) -> Rows:
    table = [["class", "level", "objects", "AP40", "AP11"]]
    for name, levels in result.results.items():
        if levels is None:
            table.append([name, "never detected", "-", "-", "-"])
            continue
        for level, r in levels.items():
            aps = ((r.ap40, f"{name}/{level}/ap40"), (r.ap11, f"{name}/{level}/ap11"))
            table.append(
                [name, level, str(r.objects), *(_percent(v, bounds.get(key)) for v, key in aps)]
            )
    map40 = _percent(result.map40, bounds.get("map40"))
    return [*table, ["mean", "", "", map40, _percent(result.map11, bounds.get("map11"))]]


def _voc_rows(result: VocResult, bounds: Mapping[str, tuple[float, float]]) -> Rows:
    table = [["class", "objects", "detections", "AP (area)", "AP (11 points)"]]
    for name, curve in result.results.items():
        if curve is None:
            table.append([name, "never detected", "0", "-", "-"])
            continue
        area = _percent(curve.ap_area, bounds.get(f"{name}/area"))
        points = _percent(curve.ap11, bounds.get(f"{name}/voc07_11point"))
        table.append([name, str(curve.objects), str(curve.detections), area, points])
    mean_area = _percent(result.map_area, bounds.get("map_area"))
    return [*table, ["mean", "", "", mean_area, _percent(result.map11, bounds.get("map11"))]]


def _coco_rows(result: CocoResult) -> Rows:
    table = [["number", "value"]]
    table += [[name, _percent(value)] for name, value in result.numbers.items()]
    for name, numbers in result.results.items():
        table.append([f"AP of {name}", _percent(numbers["AP"]) if numbers else "never detected"])
    return table


def notes(result: Result) -> list[str]:
    """One sentence for each figure that may mislead."""
    lost = [name for name, r in result.results.items() if r is None]
    found = [f"{name} was never detected and counts 0 in the means" for name in lost]
    if isinstance(result, KittiResult):
        counts = result.counts
        if counts.other_detections:
            found.append(f"{counts.other_detections} detections of other classes are not judged")
        for name, levels in result.results.items():
            found += _few(name, levels or {})
    if isinstance(result, VocResult):
        for name, curve in result.results.items():
            if curve and not curve.objects:
                found.append(f"{name} has no labelled object that counts: its AP of 0 says nothing")
    return found


def _few(name: str, levels: Mapping[str, LevelResult]) -> Sequence[str]:
    none = [level for level, r in levels.items() if not r.objects]
    few = [f"{r.objects} {level}" for level, r in levels.items() if 0 < r.objects < ENOUGH_OBJECTS]
    said = []
    if none:
        said.append(
            f"{name} has no labelled object that counts at {', '.join(none)}:"
            " an AP of 0 there says nothing"
        )
    if few:
        said.append(
            f"{name} has few labelled objects ({', '.join(few)}): by the protocol even a perfect"
            f" detector stays below 100 with fewer than {ENOUGH_OBJECTS}"
        )
    return said


# ---- judging: From labels and detections to everything that a report shows, whatever the protoco


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationInput:
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


def evaluate(
    material: EvaluationInput, protocol: str, rules: kitti.Rules, draws: int = 0
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


def _judge_voc(material: EvaluationInput, draws: int) -> tuple[Result, Intervals | None]:
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


def coco_input(labels: coco.Record, records: list[coco.Record]) -> EvaluationInput:
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
    return EvaluationInput(
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
