"""A result as the rows of a table, and what a reader should know about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from squeezedet.evaluation.bootstrap import Intervals
from squeezedet.evaluation.coco import CocoResult
from squeezedet.evaluation.kitti import KittiResult, LevelResult
from squeezedet.evaluation.voc import VocResult

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
