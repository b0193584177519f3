"""The page of a run: one HTML file with its curves, pictures and settings; it needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from squeezedet.evaluation.report import PAGE, STYLE
from squeezedet.files import replacing, write_atomic
from squeezedet.training import curves, pictures
from squeezedet.training.log import Row
from squeezedet.training.record import RECORD
from squeezedet.training.run import Run
from squeezedet.training.validate import MEASURES

if TYPE_CHECKING:
    from PIL.Image import Image

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
        with replacing(run.folder / pictures.FOLDER / f"{name}.png") as temporary:
            chart.save(temporary, "PNG")
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
        drawn["loss"] = curves.chart("Loss, by its terms", terms, log=True)
    if any(row.get(name) for row in rows for name in ap):
        measure = MEASURES[run.recipe.protocol][1]
        classes = [name for name in ap if not name.startswith("train_")]
        shown = [name for name in ap if len(ap) <= MOST_CURVES or name not in classes]
        by_name = {_class(name): _curve(rows, name) for name in shown}
        if len(ap) > MOST_CURVES:
            by_name["mean"] = _mean_curve(rows, classes)
        drawn["ap"] = curves.chart(f"{measure} on the validation images", by_name)
    if rows:
        speed = {"images per second": _curve(rows, "images_per_s")}
        drawn["speed"] = curves.chart("Speed", speed)
    return drawn


def _class(column: str) -> str:
    return "training images" if column.startswith("train_") else column.partition("_")[2]


def _mean_curve(rows: Sequence[Row], names: Sequence[str]) -> curves.Curve:
    steps, values = [], []
    for row in rows:
        if row.get(names[0]):
            steps.append(float(row["step"]))
            values.append(sum(float(row[name]) for name in names) / len(names))
    return steps, values


def _ap_columns(run: Run, columns: Sequence[str]) -> list[str]:
    prefix = MEASURES[run.recipe.protocol][0]
    return [c for c in columns if c.startswith(f"{prefix}_") or c == f"train_{prefix}"]


def _curve(rows: Sequence[Row], name: str) -> curves.Curve:
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

    found = folder / pictures.FOLDER / pictures.PREDICTIONS
    batches = sorted((folder / pictures.FOLDER).glob("batch-*.png"))
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
    content = io.BytesIO()
    picture.save(content, kind, quality=JPEG_QUALITY)
    data = base64.b64encode(content.getvalue()).decode()
    return (
        f'<figure class="{style}"><img alt="{escape(name)}" '
        f'src="data:image/{kind.lower()};base64,{data}"></figure>'
    )
