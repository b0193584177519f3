"""The page of a run: one HTML file with its curves, pictures and settings; it needs no network."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from squeezedet.data.sample import Sample
from squeezedet.detections import Detections
from squeezedet.drawing import COLORS, draw_boxes, encode_picture
from squeezedet.evaluation.report import PAGE, STYLE
from squeezedet.files import write_atomic
from squeezedet.media.images import read_image
from squeezedet.training.augment import Example
from squeezedet.training.log import Row
from squeezedet.training.recipe import even_sample
from squeezedet.training.run_folder import RECORD, Run
from squeezedet.training.validate import MEASURES

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw


# ---- curves: Curves of a run as pictures, drawn with Pillow.

Curve = tuple[Sequence[float], Sequence[float]]
"""x and y of the points."""

CURVE_WIDTH, HEIGHT, FINER = 840, 520, 2  # drawn finer, then reduced: Pillow's lines are not smooth
LEFT, RIGHT, TOP, BOTTOM = 90, 20, 50, 100
GRID, INK = (222, 222, 222), (50, 50, 50)
INKS = [colour for colour in COLORS if colour != (240, 228, 66)]  # yellow is too pale on white
MOST_TICKS = 6


def chart(title: str, curves: Mapping[str, Curve], *, log: bool = False) -> Image:
    """A chart of y against the step.

    Args:
        title: above it.
        curves: by name; a point that is not finite, or with ``log`` not positive, is left out.
        log: with a logarithmic axis.
    """
    from PIL import Image, ImageDraw

    points = {name: _points(curve, log) for name, curve in curves.items()}
    everything = [point for some in points.values() for point in some]
    picture = Image.new("RGB", (CURVE_WIDTH * FINER, HEIGHT * FINER), "white")
    pen = ImageDraw.Draw(picture)
    _text(pen, (CURVE_WIDTH / 2, 24), title, "mm", size=24)
    if everything:
        x_ticks = ticks(0, max(x for x, _ in everything))
        lowest, highest = (f(y for _, y in everything) for f in (min, max))
        y_ticks = _decades(10**lowest, 10**highest) if log else ticks(min(0.0, lowest), highest)
        axes = _Axes((x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
        _grid(pen, axes, x_ticks, y_ticks, log)
        for k, (name, some) in enumerate(points.items()):
            ink = INKS[k % len(INKS)]
            if len(some) == 1:
                x, y = axes.place(*some[0])
                pen.ellipse((x - 8, y - 8, x + 8, y + 8), fill=ink)
            pen.line([axes.place(*p) for p in some], fill=ink, width=3 * FINER, joint="curve")
            _name(pen, k, len(points), name, ink)
    return picture.resize((CURVE_WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, evenly spaced, from at most ``low`` to at least ``high``."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / MOST_TICKS))
    step = next(power * k for k in (1, 2, 5, 10, 20) if span / (power * k) <= MOST_TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2, 5, 10 ... around the range."""
    marks = [10.0**k * m for k in range(-12, 13) for m in (1, 2, 5)]
    below = max((m for m in marks if m <= low), default=marks[0])
    above = min((m for m in marks if m > high), default=marks[-1])
    inside = [m for m in marks if below <= m <= above]
    if len(inside) > 2 * MOST_TICKS:
        inside = [m for m in inside if f"{m:e}"[0] == "1" or m in (below, above)]
    return [math.log10(m) for m in inside]


def _points(curve: Curve, log: bool) -> list[tuple[float, float]]:
    good = [(x, y) for x, y in zip(*curve, strict=True) if math.isfinite(y)]
    return [(x, math.log10(y)) for x, y in good if y > 0] if log else good


class _Axes:
    """Where a point lies on the picture; y may be logarithmic, then its range is in powers."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = x, y

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        left = LEFT + across * (CURVE_WIDTH - LEFT - RIGHT)
        top = HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)
        return FINER * left, FINER * top


def _grid(
    pen: ImageDraw, axes: _Axes, x_ticks: list[float], y_ticks: list[float], log: bool
) -> None:
    for x in x_ticks:
        foot, head = axes.place(x, axes.y[0]), axes.place(x, axes.y[1])
        pen.line([foot, head], fill=GRID, width=FINER)
        _text(pen, (foot[0] / FINER, foot[1] / FINER + 18), f"{x:g}", "mm")
    for y in y_ticks:
        left, right = axes.place(axes.x[0], y), axes.place(axes.x[1], y)
        pen.line([left, right], fill=GRID, width=FINER)
        value = 10**y if log else y
        _text(pen, (left[0] / FINER - 10, left[1] / FINER), f"{value:.3g}", "rm")
    _text(pen, (CURVE_WIDTH / 2, HEIGHT - BOTTOM + 42), "step", "mm")


def _name(pen: ImageDraw, k: int, count: int, name: str, ink: tuple[int, int, int]) -> None:
    """The names stand side by side below the plot, where no line passes."""
    x = LEFT + k * (CURVE_WIDTH - LEFT - RIGHT) / count
    y = HEIGHT - 22
    pen.line([(FINER * x, FINER * y), (FINER * (x + 24), FINER * y)], fill=ink, width=4 * FINER)
    _text(pen, (x + 32, y), name, "lm")


def _text(pen: ImageDraw, at: tuple[float, float], text: str, anchor: str, size: int = 18) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(size=size * FINER)
    pen.text((FINER * at[0], FINER * at[1]), text, fill=INK, font=font, anchor=anchor)


# ---- pictures: Pictures of a run: what it learns from, and what it finds.

FOLDER = "pictures"
PREDICTIONS = "predictions.png"
IMAGES_SHOWN = 6
SHOWN_SCORE = 0.4
PICTURE_WIDTH, COLUMNS, GAP = 1280, 2, 8
REGION = "no loss"


def draw_batch(folder: Path, step: int, examples: Sequence[Example], names: Sequence[str]) -> None:
    """Write ``pictures/batch-STEP.png``: the images of a step with the boxes to learn.

    Raises:
        SqueezeDetError: it cannot be written.
    """
    drawn = []
    for example in examples:
        labels = [names[i] for i in example.class_id] + [REGION] * len(example.regions)
        class_id = np.append(example.class_id, [len(names)] * len(example.regions)).astype(int)
        boxes = np.concatenate([example.xyxy, example.regions])
        drawn.append(draw_boxes(example.pixels, boxes, labels, class_id))
    _save(tile(drawn), folder / FOLDER / f"batch-{step}.png")


def draw_detections(folder: Path, samples: Sequence[Sample], found: Sequence[Detections]) -> None:
    """Write ``pictures/predictions.png``: what is found in the same few images every time.

    Raises:
        SqueezeDetError: it cannot be written.
    """
    by_image = {id(sample): detections for sample, detections in zip(samples, found, strict=True)}
    drawn = []
    for sample in even_sample(samples, IMAGES_SHOWN):
        detections = by_image[id(sample)]
        sure = detections.score >= SHOWN_SCORE
        class_id, score = detections.class_id[sure], detections.score[sure]
        labels = [f"{detections.names[i]} {s:.2f}" for i, s in zip(class_id, score, strict=True)]
        pixels = read_image(sample.image).pixels
        drawn.append(draw_boxes(pixels, detections.xyxy[sure], labels, class_id))
    _save(tile(drawn), folder / FOLDER / PREDICTIONS)


def tile(pictures: Sequence[Image]) -> Image:
    """Pictures in two columns, each as wide as a column."""
    from PIL import Image

    side = (PICTURE_WIDTH - (COLUMNS - 1) * GAP) // COLUMNS
    scaled = [p.resize((side, max(1, round(side * p.height / p.width)))) for p in pictures]
    rows = [scaled[i : i + COLUMNS] for i in range(0, len(scaled), COLUMNS)]
    heights = [max(picture.height for picture in row) for row in rows]
    canvas = Image.new("RGB", (PICTURE_WIDTH, sum(heights) + GAP * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for k, picture in enumerate(row):
            canvas.paste(picture, (k * (side + GAP), top))
        top += height + GAP
    return canvas


def _save(picture: Image, path: Path) -> None:
    write_atomic(path, encode_picture(picture, "PNG"))


# ---- page: The page of a run: one HTML file with its curves, pictures and settings; it needs no

JPEG_QUALITY = 85
ROWS_SHOWN = 30
MOST_CURVES = 7
"""With more classes than this the AP chart shows their mean."""
NO_LOSS = ("step", "images_per_s", "learning_rate", "grad_norm")


def write_page(run: Run, rows: Sequence[Row]) -> Path:
    """Write ``index.html``, and the curves as PNG, from what is in the run folder.

    Args:
        run: whose page.
        rows: of ``metrics.csv``.

    Raises:
        SqueezeDetError: a file cannot be written.
    """
    charts = draw_curves(run, rows)
    for name, chart in charts.items():
        write_atomic(run.folder / FOLDER / f"{name}.png", encode_picture(chart, "PNG"))
    page = run.folder / PAGE
    write_atomic(page, render(run, rows, charts))
    return page


def draw_curves(run: Run, rows: Sequence[Row]) -> dict[str, Image]:
    """The curves of a log by name: ``loss``, ``ap``, ``speed``; those that have a point."""
    columns = list(rows[0]) if rows else []
    ap = _ap_columns(run, columns)
    losses = [name for name in columns if name not in (*NO_LOSS, *ap)]
    drawn = {}
    if losses:
        terms = {name: _curve(rows, name) for name in losses}
        drawn["loss"] = chart("Loss, by its terms", terms, log=True)
    if any(row.get(name) for row in rows for name in ap):
        measure = MEASURES[run.recipe.protocol][1]
        classes = [name for name in ap if not name.startswith("train_")]
        shown = [name for name in ap if len(ap) <= MOST_CURVES or name not in classes]
        by_name = {_class(name): _curve(rows, name) for name in shown}
        if len(ap) > MOST_CURVES:
            by_name["mean"] = _mean_curve(rows, classes)
        drawn["ap"] = chart(f"{measure} on the validation images", by_name)
    if rows:
        speed = {"images per second": _curve(rows, "images_per_s")}
        drawn["speed"] = chart("Speed", speed)
    return drawn


def _class(column: str) -> str:
    return "training images" if column.startswith("train_") else column.partition("_")[2]


def _mean_curve(rows: Sequence[Row], names: Sequence[str]) -> Curve:
    steps, values = [], []
    for row in rows:
        if row.get(names[0]):
            steps.append(float(row["step"]))
            values.append(sum(float(row[name]) for name in names) / len(names))
    return steps, values


def _ap_columns(run: Run, columns: Sequence[str]) -> list[str]:
    prefix = MEASURES[run.recipe.protocol][0]
    return [c for c in columns if c.startswith(f"{prefix}_") or c == f"train_{prefix}"]


def _curve(rows: Sequence[Row], name: str) -> Curve:
    points = [(float(row["step"]), float(row[name])) for row in rows if row.get(name)]
    return [x for x, _ in points], [y for _, y in points]


def render(run: Run, rows: Sequence[Row], charts: Mapping[str, Image]) -> str:
    """The page as text."""
    title = f"Training run {run.folder.resolve().name}"
    step = rows[-1]["step"] if rows else "0"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Step {step} of {run.recipe.steps}; {len(run.train):,} images to learn from, "
        f"{len(run.val):,} to judge by.</p>",
        '<div class="row">',
        *(_figure(chart, name, "PNG") for name, chart in charts.items()),
        "</div>",
        _validations(run, rows),
        *_photographs(run.folder),
        _settings(run.folder / RECORD),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}\n"
        "img{max-width:100%;height:auto}pre{overflow-x:auto;background:#f4f4f4;padding:.6rem}"
        "figure.wide{margin:0}</style></head>\n"
        f"<body>\n{chr(10).join(body)}\n</body></html>\n"
    )


def _validations(run: Run, rows: Sequence[Row]) -> str:
    ap = _ap_columns(run, list(rows[0]) if rows else [])
    judged = [row for row in rows if any(row.get(name) for name in ap)][-ROWS_SHOWN:]
    if not judged:
        return ""
    classes = [name for name in ap if not name.startswith("train_")]
    head = ["step", *map(_class, classes), "mean"]
    head += ["mean on training images"] if len(ap) > len(classes) else []
    table = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for row in judged:
        values = [float(row[name]) for name in classes if row.get(name)]
        mean = [sum(values) / len(values)] if values else []
        more = [float(row[name]) for name in ap if name not in classes and row.get(name)]
        cells = [row["step"], *(f"{100 * v:.1f}" for v in [*values, *mean, *more])]
        table.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    measure = MEASURES[run.recipe.protocol][1]
    caption = f"<caption>{measure} in %, of the averaged weights where a run averages</caption>"
    lines = "\n".join(table)
    return f'<h2>Validations</h2>\n<div class="table"><table>{caption}\n{lines}</table></div>'


def _photographs(folder: Path) -> list[str]:
    from PIL import Image

    found = folder / FOLDER / PREDICTIONS
    batches = sorted((folder / FOLDER).glob("batch-*.png"))
    parts = []
    for title, paths in (("Found now", [found]), ("The first batches", batches)):
        shown = []
        for path in paths:
            if path.is_file():
                with Image.open(path) as picture:
                    shown.append(_figure(picture.convert("RGB"), path.stem, "JPEG", "wide"))
        parts += [f"<h2>{title}</h2>", *shown] if shown else []
    return parts


def _settings(path: Path) -> str:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return f"<h2>How this is made</h2>\n<pre>{escape(text)}</pre>"


def _figure(picture: Image, name: str, kind: str, style: str = "") -> str:
    data = base64.b64encode(encode_picture(picture, kind, JPEG_QUALITY)).decode()
    return (
        f'<figure class="{style}"><img alt="{escape(name)}" '
        f'src="data:image/{kind.lower()};base64,{data}"></figure>'
    )
