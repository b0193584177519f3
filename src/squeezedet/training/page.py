"""The page of a run: one HTML file with its charts, pictures and settings; it needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from squeezedet.charts import Axis, Series, line_chart
from squeezedet.data.sample import Sample
from squeezedet.detections import Detections
from squeezedet.drawing import draw_boxes, encode_picture
from squeezedet.files import read_text, write_atomic
from squeezedet.media.images import read_image
from squeezedet.pages import PAGE, picture_url, svg, write_page
from squeezedet.training import checkpoint
from squeezedet.training.augment import Example
from squeezedet.training.log import Row
from squeezedet.training.recipe import even_sample
from squeezedet.training.run_folder import RECORD, Run
from squeezedet.training.validate import MEASURES, SHOWN_SCORE

if TYPE_CHECKING:
    from PIL.Image import Image

# ------------------------------------------------------------ pictures

FOLDER = "pictures"
PREDICTIONS = "predictions.png"
IMAGES_SHOWN = 6
PICTURE_WIDTH, COLUMNS, GAP = 1280, 2, 8
REGION = "no loss"


def draw_batch(folder: Path, step: int, examples: Sequence[Example], names: Sequence[str]) -> None:
    """Write ``pictures/batch-STEP.png``: the images of a step with the boxes to learn."""
    drawn = []
    for example in examples:
        labels = [names[i] for i in example.class_id] + [REGION] * len(example.regions)
        class_id = np.append(example.class_id, [len(names)] * len(example.regions)).astype(int)
        boxes = np.concatenate([example.xyxy, example.regions])
        drawn.append(draw_boxes(example.pixels, boxes, labels, class_id))
    _save(tile(drawn), folder / FOLDER / f"batch-{step}.png")


def draw_detections(folder: Path, samples: Sequence[Sample], found: Sequence[Detections]) -> None:
    """Write ``pictures/predictions.png``: what is found in the same few images every time."""
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


# ------------------------------------------------------------ the page

ROWS_SHOWN = 30
MAX_LINES = 7
"""With more classes than this the AP chart shows their mean."""
NO_LOSS = ("step", "images_per_s", "learning_rate", "grad_norm")


def write_run_page(run: Run, rows: Sequence[Row]) -> Path:
    """Write ``index.html``, and its charts as SVG files, from ``rows`` of metrics.csv and what is in the run folder."""
    charts = draw_charts(run, rows)
    for name, chart in charts.items():
        write_atomic(run.folder / FOLDER / f"{name}.svg", chart)
    record = run.folder / RECORD
    return write_page(
        run.folder / PAGE,
        "training.html",
        title=f"Training run {run.folder.resolve().name}",
        step=int(rows[-1]["step"]) if rows else 0,
        steps=run.recipe.steps,
        train=len(run.train),
        val=len(run.val),
        charts=[svg(chart) for chart in charts.values()],
        validations=_validations(run, rows),
        caption=f"{MEASURES[run.recipe.protocol][1]} in %, of the averaged weights where a run "
        "averages; a class without an object is left out",
        best=_best(run),
        photographs=_photographs(run.folder),
        settings=read_text(record) if record.is_file() else "",
    )


def draw_charts(run: Run, rows: Sequence[Row]) -> dict[str, str]:
    """The curves of a log as SVG, by name: ``loss``, ``ap``, ``speed``; those with a point."""
    columns = list(rows[0]) if rows else []
    ap = _ap_columns(run, columns)
    losses = [name for name in columns if name not in (*NO_LOSS, *ap)]
    drawn = {}
    step = Axis("step", low=0)
    if losses:
        terms = [_curve(rows, name, name) for name in losses]
        drawn["loss"] = line_chart("Loss, by its terms", terms, x=step, y=Axis(log=True))
    if any(row.get(name) for row in rows for name in ap):
        measure = MEASURES[run.recipe.protocol][1]
        classes = [name for name in ap if not name.startswith("train_")]
        shown = [name for name in ap if len(ap) <= MAX_LINES or name not in classes]
        lines = [_curve(rows, name, _class(name)) for name in shown]
        if len(ap) > MAX_LINES:
            means = [(float(row["step"]), mean) for row in rows if (mean := _mean(row, classes)) is not None]
            lines.append(_series("mean", means))
        title = f"{measure} on the validation images"
        drawn["ap"] = line_chart(title, lines, x=step, y=Axis(low=0))
    if rows:
        speed = [_curve(rows, "images_per_s", "images per second")]
        drawn["speed"] = line_chart("Speed", speed, x=step, y=Axis(low=0))
    return drawn


def _class(column: str) -> str:
    return "training images" if column.startswith("train_") else column.partition("_")[2]


def _mean(row: Row, names: Sequence[str]) -> float | None:
    """Of the classes that have an AP."""
    values = [float(row[name]) for name in names if row.get(name)]
    return sum(values) / len(values) if values else None


def _ap_columns(run: Run, columns: Sequence[str]) -> list[str]:
    prefix = MEASURES[run.recipe.protocol][0]
    return [c for c in columns if c.startswith(f"{prefix}_") or c == f"train_{prefix}"]


def _curve(rows: Sequence[Row], column: str, name: str) -> Series:
    return _series(name, [(float(row["step"]), float(row[column])) for row in rows if row.get(column)])


def _series(name: str, points: Sequence[tuple[float, float]]) -> Series:
    return Series(name, [x for x, _ in points], [y for _, y in points])


def _validations(run: Run, rows: Sequence[Row]) -> list[list[str]]:
    """The table of the last validations; nothing without one."""
    ap = _ap_columns(run, list(rows[0]) if rows else [])
    shown = [row for row in rows if any(row.get(name) for name in ap)][-ROWS_SHOWN:]
    if not shown:
        return []
    classes = [name for name in ap if not name.startswith("train_")]
    training = [name for name in ap if name not in classes]
    table = [["step", *map(_class, classes), "mean", *map(_class, training)]]
    for row in shown:
        mean = _mean(row, classes)
        each, train = (
            [f"{100 * float(row[n]):.1f}" if row.get(n) else "" for n in part] for part in (classes, training)
        )
        table.append([row["step"], *each, "" if mean is None else f"{100 * mean:.1f}", *train])
    return table


def _best(run: Run) -> Mapping[str, Any] | None:
    """Precision against recall, and confusion, as ``best.safetensors`` says; None without it."""
    if not run.best.is_file():
        return None
    metadata = checkpoint.read_metadata(run.best)
    figures = metadata.get("figures") or {}
    axes = {"x": Axis("recall", 0, 1), "y": Axis("precision", 0, 1)}
    lines = {name: Series(name, *curve) for name, curve in figures.get("precision", {}).items()}
    charts = [line_chart(name, [line], **axes) for name, line in lines.items()]
    names = [*figures.get("classes", ())]
    confusion = [["there \\ found", *names, "missed"]] if names else []
    counts = figures.get("confusion", [])
    for name, row in zip([*names, "nothing (false alarm)"], counts, strict=False):
        confusion.append([name, *map(str, row)])
    return {
        "step": int(metadata.get("step", 0)),
        "charts": [svg(chart) for chart in charts],
        "confusion": confusion,
        "caption": f"Detections of score {SHOWN_SCORE:g} or more against the labelled objects, "
        "matched at an overlap of 0.5 or more",
    }


def _photographs(folder: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    from PIL import Image

    found = folder / FOLDER / PREDICTIONS
    batches = sorted((folder / FOLDER).glob("batch-*.png"))
    parts = []
    for title, paths in (("Found now", [found]), ("The first batches", batches)):
        shown = []
        for path in paths:
            if path.is_file():
                with Image.open(path) as picture:
                    shown.append((path.stem, picture_url(picture.convert("RGB"))))
        if shown:
            parts.append((title, shown))
    return parts
