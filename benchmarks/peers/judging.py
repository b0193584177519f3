"""All contenders on the same images by the same rules: KITTI ``current``, and VOC's AP50."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squeezedet.data.sample import Sample
from squeezedet.detections import Detections
from squeezedet.evaluation import kitti, voc
from squeezedet.evaluation.bootstrap import Intervals
from squeezedet.evaluation.evaluate import apply_protocol
from squeezedet.evaluation.inputs import EvaluationInput
from squeezedet.media.images import Frame

CLASSES = tuple(rule for rule in kitti.KITTI_CLASSES if rule.name in ("car", "pedestrian"))
LEVELS = tuple(level.name for level in kitti.KITTI_LEVELS)
COLUMNS = (*LEVELS, "voc_ap50")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A detector to be compared.

    Attributes:
        name: for the tables.
        input: size of its input in words.
        parameters: how many numbers it learnt.
        bytes: size of its file.
        floor: score from which its boxes are judged.
        detect: a frame and a score threshold to what is found.
    """

    name: str
    input: str
    parameters: int
    bytes: int
    floor: float
    detect: Callable[[Frame, float], Detections]


@dataclass(frozen=True, slots=True)
class Figure:
    """One average precision.

    Attributes:
        ap: 0 to 1.
        low, high: its 95 % bootstrap interval over images.
        objects: labelled boxes that count.
    """

    ap: float
    low: float
    high: float
    objects: int


Figures = Mapping[str, Mapping[str, Figure]]
"""class -> easy, moderate, hard (AP40) and voc_ap50 (area under the curve)."""


def figures(samples: Sequence[Sample], found: Sequence[Detections], draws: int) -> Figures:
    """What one contender is worth on some images.

    Args:
        samples: the labelled images.
        found: what it found in each.
        draws: of the bootstrap; one at least.
    """
    material = EvaluationInput(
        ids=[sample.id for sample in samples],
        images=None,
        truth=[sample.objects for sample in samples],
        detections=found,
        classes=CLASSES,
    )
    ap40, ap40_bounds = apply_protocol(material, "kitti", "current", draws)
    ap50, ap50_bounds = apply_protocol(material, "voc", "current", draws)
    assert isinstance(ap40, kitti.KittiResult)
    assert isinstance(ap50, voc.VocResult)
    assert ap40_bounds
    assert ap50_bounds
    table: dict[str, dict[str, Figure]] = {}
    for rule in CLASSES:
        levels, curve = ap40.results[rule.name], ap50.results[rule.name]
        row = {
            level: _figure(levels[level].ap40, levels[level].objects, ap40_bounds,
                           f"{rule.name}/{level}/ap40")
            for level in LEVELS
            if levels
        }  # fmt: skip
        if curve:
            row["voc_ap50"] = _figure(curve.ap_area, curve.objects, ap50_bounds, f"{rule.name}/area")
        table[rule.name] = row  # empty for a class that was never found
    return table


def _figure(ap: float, objects: int, intervals: Intervals, name: str) -> Figure:
    low, high = intervals.bounds[name]
    return Figure(ap, low, high, objects)


def parts(root: Path, samples: Sequence[Sample]) -> dict[str, list[int]]:
    """Indices of the images of KITTI, as manifest.tsv names their source, and of all images."""
    everything = list(range(len(samples)))
    manifest = root / "manifest.tsv"
    if not manifest.is_file():
        return {"all": everything}
    with manifest.open(encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file, delimiter="\t"))
    source = {row["id"]: row.get("source") or "" for row in rows}
    kitti_part = [i for i in everything if source.get(samples[i].id, "").startswith("kitti")]
    return {"KITTI": kitti_part, "all": everything} if kitti_part else {"all": everything}
