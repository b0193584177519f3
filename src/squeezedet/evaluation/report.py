"""The report: one HTML page that holds everything and needs no network."""

from __future__ import annotations

import base64
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from squeezedet.drawing import draw_boxes, encode_picture
from squeezedet.evaluation import charts
from squeezedet.evaluation.bootstrap import Intervals
from squeezedet.evaluation.charts import Line
from squeezedet.evaluation.errors import (
    KINDS,
    Case,
    Confusion,
    ErrorAnalysis,
    ErrorCosts,
    analyze,
    confuse,
    error_costs,
)
from squeezedet.evaluation.evaluate import EvaluationInput, Result, notes, rows
from squeezedet.evaluation.kitti import KittiResult
from squeezedet.evaluation.recall import RecallCurve
from squeezedet.evaluation.voc import VocResult
from squeezedet.files import text_file
from squeezedet.media.images import read_image
from squeezedet.version import __version__

# ---- pictures: Crops around single cases, as data that a page can hold.

SIDE_PX = 260
JPEG_QUALITY = 80
DETECTED, LABELLED = 0, 1  # of ``squeezedet.drawing.COLORS``: green, orange


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
    colours = np.arange(len(boxes)) + (LABELLED if case.kind == "missed" else DETECTED)
    drawn = draw_boxes(part, placed, [""] * len(boxes), colours)
    content = encode_picture(drawn, quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def _window(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square around the boxes, twice their size, moved into the picture where it fits."""
    corners = np.array(boxes)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    side = max(2 * float((high - low).max()), 64.0)
    x, y = (
        min(max(centre - side / 2, 0), max(limit - side, 0))
        for centre, limit in zip((low + high) / 2, size, strict=True)
    )
    return (round(x), round(y), round(min(x + side, size[0])), round(min(y + side, size[1])))


# ---- report: The report: one HTML page that holds everything and needs no network.

PAGE = "index.html"
CASES_SHOWN = 6
MEANING = {
    "correct": "the right class, overlap at least 0.5, not found before",
    "localisation": "the right class, overlap between 0.1 and 0.5",
    "classification": "overlap above 0.1 with an object of another class",
    "background": "no overlap above 0.1 with any object",
    "repeated": "an object that a better detection found before",
    "missed": "an object without a correct detection",
}
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:1080px;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #ccc}
table{border-collapse:collapse;margin:.6rem 0}
th,td{padding:.2rem .7rem;border-bottom:1px solid #e3e3e3;text-align:right;
font-variant-numeric:tabular-nums}
th:first-child,td:first-child,.words :is(th,td):last-child{text-align:left}th{background:#f4f4f4}
caption{text-align:left;color:#444;padding:.3rem 0}
.row{display:flex;flex-wrap:wrap;align-items:flex-start;gap:1rem}.row>*{margin:0;max-width:min(420px,100%)}
.row svg{max-width:100%;height:auto}
figcaption{color:#444;font-size:.85rem}svg text{font:11px system-ui,sans-serif;fill:#333}
svg text.title{font-size:13px;font-weight:600}svg .grid{stroke:#ddd;fill:none}
ul.notes{background:#fff7e0;padding:.6rem .6rem .6rem 2rem}
code{background:#f4f4f4;padding:.1rem .3rem;overflow-wrap:anywhere}
.table{overflow-x:auto}.long .table{max-height:32rem;overflow-y:auto}
@media(max-width:30rem){th,td{padding:.2rem .4rem}}
"""


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What the page shows.

    Attributes:
        title: heading.
        command: the command that made it.
        material: what was judged.
        result: the protocol's answer; ``intervals`` belong to it.
        curve: recall against the number of boxes; None without a model.
        score: detections count from here on in confusion and per-image table.
        notes: what a reader should know beside the notes of the result.
    """

    title: str
    command: str
    material: EvaluationInput
    result: Result
    intervals: Intervals | None
    curve: RecallCurve | None
    score: float
    notes: Sequence[str] = ()


def write(folder: Path, report: Report) -> Path:
    """Write ``index.html`` into the folder; its path."""
    page = folder / PAGE
    with text_file(page) as file:
        file.write(render(report))
    return page


def render(report: Report) -> str:
    """The page."""
    material = report.material
    analysis = analyze(material.truth, material.detections, material.names)
    costs = error_costs(material.truth, material.detections, material.classes)
    confusion = confuse(material.truth, material.detections, material.names, report.score)
    body = [
        f"<h1>{escape(report.title)}</h1>",
        _result(report),
        _curves(report),
        _confusion(confusion),
        _errors(analysis, costs),
        _cases(analysis, material),
        _per_image(material, confusion),
        _made_by(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Nothing is fetched; say so, and let the browser hold us to it.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(body)}\n</body></html>\n"
    )


def _table(table: Sequence[Sequence[str]], caption: str = "", kind: str = "numbers") -> str:
    """Rows of HTML cells, the first a header. Cells must be escaped already."""
    head, *rest = table
    lines = [
        f'<div class="table"><table class="{kind}">',
        f"<caption>{caption}</caption>" if caption else "",
    ]
    lines.append("<tr>" + "".join(f'<th scope="col">{cell}</th>' for cell in head) + "</tr>")
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rest]
    return "\n".join([*lines, "</table></div>"])


def _escaped(table: Iterable[Iterable[str]]) -> list[list[str]]:
    return [[escape(cell) for cell in row] for row in table]


def _result(report: Report) -> str:
    answer = report.result.to_dict()
    counts = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in answer["counts"].items())
    rules = f", rules <b>{escape(answer['rules'])}</b>" if "rules" in answer else ""
    caption = "Average precision in %"
    if report.intervals:
        draws = report.intervals.draws
        caption += f"; in brackets 95% intervals by {draws} bootstrap draws of the images"
    said = [escape(note) for note in [*report.notes, *notes(report.result)]]
    warned = "".join(f"<li>{note}</li>" for note in said)
    return (
        f"<p>Protocol <b>{answer['protocol']}</b>{rules}: {counts}.</p>\n"
        + _table(_escaped(rows(report.result, report.intervals)), caption)
        + (f'\n<ul class="notes">{warned}</ul>' if warned else "")
    )


def _curves(report: Report) -> str:
    drawn = [
        charts.line_chart(name, "recall", "precision", lines)
        for name, lines in _precision_lines(report.result).items()
    ]
    heading = "<h2>Precision and recall</h2>"
    if report.curve:
        curve = report.curve
        lines = [
            Line("of the object's class", curve.boxes, curve.same_class),
            Line("of any class", curve.boxes, curve.any_class),
        ]
        chart = charts.line_chart(
            "Recall against N", "boxes per image", "recall", lines, log_x=True
        )
        table = [["boxes per image", "same class", "any class"]]
        points = zip(curve.boxes, curve.same_class, curve.any_class, strict=True)
        table += [[f"{n:,}", f"{100 * a:.1f}", f"{100 * b:.1f}"] for n, a, b in points]
        drawn.append(
            f"<figure>{chart}<figcaption>How many of the {curve.objects:,} labelled objects (all"
            " sizes and occlusions) the N best boxes of each image reach, before non-maximum"
            " suppression, at the protocol's overlap of each class.</figcaption></figure>"
        )
        drawn.append(_table(table, "Recall against N, in %"))
    return f'{heading}\n<div class="row">{chr(10).join(drawn)}</div>'


def _precision_lines(result: Result) -> Mapping[str, list[Line]]:
    if isinstance(result, KittiResult):
        recall = [k / 40 for k in range(41)]
        return {
            name: [Line(level, recall, r.precision41.tolist()) for level, r in levels.items()]
            for name, levels in result.results.items()
            if levels
        }
    if isinstance(result, VocResult):
        return {
            name: [Line("IoU 0.5", curve.recall.tolist(), curve.precision.tolist())]
            for name, curve in result.results.items()
            if curve
        }
    recall = [k / 100 for k in range(101)]
    return {name: [Line("IoU 0.5", recall, y)] for name, y in result.precision50.items()}


def _confusion(confusion: Confusion) -> str:
    names = [escape(name) for name in confusion.classes]
    total = confusion.table.sum(axis=0)
    table = [["there \\ found", *names, "missed"]]
    for name, row in zip([*names, "nothing (false alarm)"], total.tolist(), strict=True):
        table.append([name, *(str(n) for n in row)])
    table[-1][-1] = ""
    caption = (
        f"Detections of score {confusion.score:g} or more against all labelled objects, matched"
        " one to one at an overlap of 0.5 or more, best scores first"
    )
    return "<h2>Confusion</h2>\n" + _table(table, caption)


def _errors(analysis: ErrorAnalysis, costs: ErrorCosts) -> str:
    counts = [["kind", "number", "of detections", "", "meaning"]]
    for kind in KINDS:
        n = analysis.count(kind)
        part = n / analysis.detections if analysis.detections and kind != "missed" else None
        cells = [f"{part:.1%}", charts.bar(part)] if part is not None else ["", ""]
        counts.append([kind, str(n), *cells, MEANING[kind]])
    caption = (
        f"The original's analysis: in each image as many of the best detections as there are"
        f" objects, {analysis.detections:,} against {analysis.objects:,}"
    )
    prices = [["kind", "number", "AP won by mending, in points", ""]]
    for what, cost in costs.costs.items():
        number = str(costs.counts[what])
        prices.append([what, number, f"{100 * cost:z.1f}", charts.bar(cost)])
    priced = (
        "What errors cost, after TIDE: all detections, the overlap of each class; mean AP (area,"
        f" all objects) is {100 * costs.ap:.1f}"
    )
    return f"<h2>Errors</h2>\n{_table(counts, caption, kind='words')}\n{_table(prices, priced)}"


def _cases(analysis: ErrorAnalysis, material: EvaluationInput) -> str:
    if material.images is None:
        return ""
    parts = [
        "<h2>Worst cases</h2>\n<p>Green: the detection. Orange: the labelled box that it overlaps"
        " most, or that was missed. Highest scores first; missed objects largest first.</p>"
    ]
    for kind in KINDS[1:]:
        worst = analysis.worst(kind, CASES_SHOWN)
        if worst:
            shown = "".join(
                f'<figure><img alt="{kind}" src="{crop(case, material.images[case.image])}">'
                f"<figcaption>{_describe(case, material.ids[case.image])}</figcaption></figure>"
                for case in worst
            )
            parts.append(f'<h3>{kind}</h3>\n<div class="row">{shown}</div>')
    return "\n".join(parts)


def _describe(case: Case, image: str) -> str:
    what = case.name if case.kind == "missed" else f"{case.name} {case.score:.2f}"
    near = f", on {case.truth} with overlap {case.overlap:.2f}" if case.truth else ""
    return escape(f"{image}: {what}{near}")


def _per_image(material: EvaluationInput, confusion: Confusion) -> str:
    table = [["image", "objects", "correct", "wrong class", "missed", "false alarms"]]
    for name, one in zip(material.ids, confusion.table, strict=True):
        correct = int(np.trace(one[:-1, :-1]))
        numbers = (
            int(one[:-1].sum()),
            correct,
            int(one[:-1, :-1].sum()) - correct,
            int(one[:-1, -1].sum()),
            int(one[-1].sum()),
        )
        table.append([escape(name), *(str(n) for n in numbers)])
    caption = f"At score {confusion.score:g} and overlap 0.5, as in the confusion"
    return f'<h2>Image by image</h2>\n<div class="long">{_table(table, caption)}</div>'


def _made_by(report: Report) -> str:
    return (
        "<h2>How this was made</h2>\n"
        f"<p><code>{escape(report.command)}</code></p>\n"
        f"<p>squeezedet {__version__}, Python {platform.python_version()}, NumPy {np.__version__},"
        f" {escape(platform.system())} {escape(platform.machine())}</p>"
    )
