"""The report of an evaluation: as plain numbers, as text, and as one page that holds everything."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.charts import Axis, Series, line_chart
from squeezedet.data.dataset import Layout
from squeezedet.data.sample import DONT_CARE, Objects
from squeezedet.detections import Detections
from squeezedet.drawing import draw_boxes
from squeezedet.evaluation.analysis import KINDS, Case, ErrorAnalysis, RecallCurve, analyze, confuse, error_costs
from squeezedet.evaluation.coco import CocoResult, Record
from squeezedet.evaluation.kitti import ClassRule, KittiResult, LevelResult
from squeezedet.evaluation.matching import Curve, Intervals, mean_of
from squeezedet.evaluation.voc import VocResult
from squeezedet.media.images import read_image
from squeezedet.pages import PAGE, picture_url, svg, write_page
from squeezedet.text import align

CASES_SHOWN = 6
MEANING = {
    "correct": "the right class, overlap at least 0.5, not found before",
    "localization": "the right class, overlap between 0.1 and 0.5",
    "classification": "overlap above 0.1 with an object of another class",
    "background": "no overlap above 0.1 with any object",
    "repeated": "an object that a better detection found before",
    "missed": "an object without a correct detection",
}
SIDE_PX = 260
DETECTED, LABELLED = 0, 1  # of ``squeezedet.drawing.COLORS``: green, orange

Result = KittiResult | VocResult | CocoResult
Rows = list[list[str]]
# With fewer objects the protocol's 41 recalls are not all reached, even by a perfect detector.
ENOUGH_OBJECTS = 41


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
    coco: Record | None = None
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
    records: list[Record] | None = None

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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Report:
    """What ``squeezedet.evaluate`` answers.

    Attributes:
        title: what was evaluated on what.
        input: labels and detections of each image.
        result: the protocol's answer; ``intervals`` belong to it.
        intervals: 95 % intervals of its figures, where they were asked for.
        curve: recall against the number of boxes; None without a model.
        score: confusion and per-image table count detections from here on.
        notes: what a reader should know beside the notes of the result.
        command: the command that made it, for the page.
    """

    title: str
    input: EvaluationInput
    result: Result
    intervals: Intervals | None = None
    curve: RecallCurve | None = None
    score: float = 0.4
    notes: Sequence[str] = ()
    command: str = ""

    @property
    def ap(self) -> dict[str, float | None]:
        """The AP that a class is compared by, 0 to 1; None where it has no labelled object.

        KITTI: AP40 at level moderate; VOC: the area under the curve; COCO: AP over IoU 0.5 to 0.95.
        """
        return self.result.ap

    @property
    def mean_ap(self) -> float | None:
        """The mean of ``ap`` over the classes that have objects; None if none has."""
        return mean_of(self.ap)

    def all_notes(self) -> list[str]:
        """What a reader should know, one sentence each."""
        return list(dict.fromkeys([*self.notes, *_notes(self.result)]))

    def headline(self) -> str:
        """Protocol and numbers of images, objects, detections."""
        answer = self.result.to_dict()
        protocol = answer["protocol"].upper()
        rules = f", rules {answer['rules']!r}" if "rules" in answer else ""
        counts = (f"{n:,} {name.replace('_', ' ')}" for name, n in answer["counts"].items())
        return f"{protocol}{rules}: {', '.join(counts)}"

    def rows(self) -> Rows:
        """A table: heading, a row per class by name, means last."""
        bounds = self.intervals.bounds if self.intervals else {}
        if isinstance(self.result, KittiResult):
            return _kitti_rows(self.result, bounds)
        if isinstance(self.result, VocResult):
            return _voc_rows(self.result, bounds)
        return _coco_rows(self.result)

    def text(self) -> str:
        """The table as aligned text, with the notes below it."""
        table = align(self.rows(), left=(0, 1), indent="  ")
        return "\n".join([self.headline(), table, *self.all_notes()])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        answer: dict[str, Any] = self.result.to_dict()
        if self.intervals:
            answer["intervals"] = self.intervals.to_dict()
        answer["ap"], answer["mean_ap"] = self.ap, self.mean_ap
        answer["notes"] = self.all_notes()
        return answer

    def write(self, folder: str | Path) -> Path:
        """Write a page as ``index.html`` into a folder; its path.

        It shows curves, confusion, errors with their costs, worst cases, and image by image.

        Raises:
            MissingExtraError: jinja2 is not installed.
            SqueezeDetError: it cannot be written.
        """
        given = self.input
        truth = given.regions
        analysis = analyze(truth, given.detections, given.names)
        confusion = confuse(truth, given.detections, given.names, self.score)
        costs = error_costs(truth, given.detections, given.classes)
        return write_page(
            Path(folder) / PAGE,
            "evaluation.html",
            title=self.title,
            headline=self.headline(),
            notes=self.all_notes(),
            draws=self.intervals.draws if self.intervals else 0,
            result=self.rows(),
            charts=[precision_chart(name, curves) for name, curves in self.result.curves().items()],
            recall=_recall(self.curve) if self.curve else None,
            score=f"{self.score:g}",
            confusion=confusion_rows(given.names, confusion.sum(axis=0).tolist()),
            analysis=analysis,
            errors=_errors(analysis),
            ap=costs.ap,
            # Kind, number, AP that mending would win.
            costs=[(kind, costs.counts[kind], max(cost, 0.0)) for kind, cost in costs.costs.items()],
            cases=_cases(analysis, given),
            images=_per_image(given.labels.ids, confusion),
            command=self.command,
            made_by=f"Python {platform.python_version()}, NumPy {np.__version__}, "
            f"{platform.system()} {platform.machine()}",
        )


def _percent(value: float | None, bound: tuple[float, float] | None = None) -> str:
    if value is None:
        return "-"
    text = f"{100 * value:.1f}"
    return f"{text} [{100 * bound[0]:.1f}, {100 * bound[1]:.1f}]" if bound else text


def _kitti_rows(result: KittiResult, bounds: Mapping[str, tuple[float, float]]) -> Rows:
    at_score = [] if result.score is None else [f"precision at {result.score:g}", f"recall at {result.score:g}"]
    table = [["class", "level", "objects", "AP40", "AP11", *at_score]]
    blank = ["-"] * len(at_score)
    for name, levels in result.results.items():
        if levels is None:
            table.append([name, "never detected", "-", "-", "-", *blank])
            continue
        for level, r in levels.items():
            aps = ((r.ap40, f"{name}/{level}/ap40"), (r.ap11, f"{name}/{level}/ap11"))
            point = [_percent(v) for v in (r.precision, r.recall)][: len(at_score)]
            table.append([name, level, str(r.objects), *(_percent(v, bounds.get(key)) for v, key in aps), *point])
    means = [_percent(mean, bounds.get(key)) for mean, key in ((result.map40, "map40"), (result.map11, "map11"))]
    return [*table, ["mean", "", "", *means, *[""] * len(at_score)]]


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


def _notes(result: Result) -> list[str]:
    """One sentence for each figure that may mislead."""
    found = []
    for name, r in result.results.items():
        if not result.objects[name]:
            found.append(f"{name} has no labelled object that counts: it is in no mean")
        elif r is None:
            found.append(f"{name} was never detected and counts 0 in the means")
    if isinstance(result, KittiResult):
        if others := result.counts["other_detections"]:
            found.append(f"{others} detections of other classes are not evaluated")
        for name, levels in result.results.items():
            found += _few(name, levels or {}) if result.objects[name] else []
    return found


def _few(name: str, levels: Mapping[str, LevelResult]) -> Iterator[str]:
    none = [level for level, r in levels.items() if not r.objects]
    few = [f"{r.objects} {level}" for level, r in levels.items() if 0 < r.objects < ENOUGH_OBJECTS]
    if none:
        yield f"{name} has no labelled object that counts at {', '.join(none)}: an AP of 0 there says nothing"
    if few:
        yield (
            f"{name} has few labelled objects ({', '.join(few)}): by the protocol even a perfect"
            f" detector stays below 100 with fewer than {ENOUGH_OBJECTS}"
        )


def precision_chart(name: str, curves: Mapping[str, Curve]) -> Any:
    """Precision against recall of a class, each curve by its label, as markup."""
    lines = [Series(label, *curve) for label, curve in curves.items()]
    return svg(line_chart(name, lines, x=Axis("recall", 0, 1), y=Axis("precision", 0, 1)))


def _recall(curve: RecallCurve) -> dict[str, Any]:
    lines = [
        Series("of the object's class", curve.boxes, curve.same_class),
        Series("of any class", curve.boxes, curve.any_class),
    ]
    points = zip(curve.boxes, curve.same_class, curve.any_class, strict=True)
    return {
        "chart": svg(
            line_chart("Recall against N", lines, x=Axis("boxes per image", log=True), y=Axis("recall", 0, 1))
        ),
        "objects": curve.objects,
        "rows": [
            ["boxes per image", "same class", "any class"],
            *([f"{n:,}", f"{100 * a:.1f}", f"{100 * b:.1f}"] for n, a, b in points),
        ],
    }


def confusion_rows(classes: Sequence[str], table: Sequence[Sequence[int]]) -> Rows:
    """The table of ``confuse``, over all images, with its heading and the names of its rows."""
    rows = [["there \\ found", *classes, "missed"]]
    rows += [[name, *map(str, row)] for name, row in zip([*classes, "nothing (false alarm)"], table, strict=True)]
    rows[-1][-1] = ""
    return rows


def _errors(analysis: ErrorAnalysis) -> list[tuple[str, int, float | None, str]]:
    """Kind, number, part of the detections (None for missed objects) and meaning."""
    counts = {kind: analysis.count(kind) for kind in KINDS}
    total = analysis.detections
    return [(kind, n, n / total if total and kind != "missed" else None, MEANING[kind]) for kind, n in counts.items()]


def _cases(analysis: ErrorAnalysis, given: EvaluationInput) -> list[tuple[str, list[tuple[str, str]]]]:
    """Kind -> picture and sentence of its worst cases."""
    if given.labels.images is None:
        return []
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for kind in KINDS[1:]:
        worst = [
            (crop(case, given.labels.images[case.image]), _describe(case, given.labels.ids[case.image]))
            for case in analysis.worst(kind, CASES_SHOWN)
        ]
        if worst:
            found.append((kind, worst))
    return found


def _describe(case: Case, image: str) -> str:
    what = case.name if case.kind == "missed" else f"{case.name} {case.score:.2f}"
    near = f", on {case.truth} with overlap {case.overlap:.2f}" if case.truth else ""
    return f"{image}: {what}{near}"


def _per_image(ids: Sequence[str], tables: NDArray[np.int64]) -> Rows:
    rows = [["image", "objects", "correct", "wrong class", "missed", "false alarms"]]
    for name, table in zip(ids, tables, strict=True):
        found, correct = table[:-1, :-1].sum(), np.trace(table[:-1, :-1])
        numbers = (table[:-1].sum(), correct, found - correct, table[:-1, -1].sum(), table[-1].sum())
        rows.append([name, *map(str, numbers)])
    return rows


def crop(case: Case, image: Path) -> str:
    """The surroundings of a case as a JPEG in a data URL.

    The detection is drawn in green, the labelled box (beside it, or missed) in orange; the
    crop holds both with as much around them again.
    """
    from PIL import Image

    frame = read_image(image)
    boxes = [case.xyxy, *([case.truth_xyxy] if case.truth_xyxy else [])]
    picture = Image.fromarray(frame.pixels)
    window = _window(boxes, picture.size)
    part = picture.crop(window)
    scale = SIDE_PX / max(part.size)
    part = part.resize((max(round(part.width * scale), 1), max(round(part.height * scale), 1)))
    placed = (np.array(boxes) - np.array([*window[:2], *window[:2]])) * scale
    colors = np.arange(len(boxes)) + (LABELLED if case.kind == "missed" else DETECTED)
    drawn = draw_boxes(part, placed, [""] * len(boxes), colors)
    return picture_url(drawn)


def _window(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square around the boxes, twice their size, moved into the picture where it fits."""
    corners = np.array(boxes)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    side = max(2 * float((high - low).max()), 64.0)
    x, y = (
        min(max(center - side / 2, 0), max(limit - side, 0))
        for center, limit in zip((low + high) / 2, size, strict=True)
    )
    return (round(x), round(y), round(min(x + side, size[0])), round(min(y + side, size[1])))
