"""The report of a compression: one HTML page with tables and plots, and the figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from itertools import groupby
from pathlib import Path

from squeezedet.compression.pipeline import Compressed, as_plain, heading, summary
from squeezedet.compression.sensitivity import Curve, Sensitivity
from squeezedet.evaluation.charts import Line, bar, line_chart
from squeezedet.evaluation.report import PAGE, STYLE
from squeezedet.files import write_atomic
from squeezedet.version import __version__

FIGURES = "compression.json"
LINES = 4
"""In one chart; more cannot be told apart."""


def write(
    folder: Path, title: str, command: str, done: Compressed, found: Sensitivity | None = None
) -> Path:
    """Write ``index.html`` and ``compression.json`` into a folder; the path of the page.

    Args:
        folder: made if need be.
        title: of the page.
        command: that made it.
        done: the compression.
        found: the scan that the densities come from, if there was one.

    Raises:
        SqueezeDetError: the folder cannot be written.
    """
    values = {
        "command": command,
        "stages": [as_plain(stage) for stage in done.stages],
        "layers": [asdict(layer) for layer in done.stages[-1].layers],
        "tensors": {name: asdict(kind) for name, kind in done.encoded.tensors.items()},
        "sensitivity": asdict(found) if found else None,
    }
    write_atomic(folder / FIGURES, json.dumps(values, indent=1) + "\n")
    write_atomic(folder / PAGE, render(title, command, done, found))
    return folder / PAGE


def render(title: str, command: str, done: Compressed, found: Sensitivity | None) -> str:
    """The page."""
    body = [
        f"<h1>{escape(title)}</h1>",
        _stages(done),
        _layers(done),
        _tensors(done),
        _sensitivity(found) if found else "",
        f"<p><code>{escape(command)}</code><br>squeezedet {__version__}</p>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(body)}\n</body></html>\n"
    )


def _stages(done: Compressed) -> str:
    first = done.stages[0]
    rows = [["", *heading(first)]]
    for stage in done.stages:
        rows.append([bar(stage.bytes / first.bytes), *map(escape, summary(stage, first))])
    return "<h2>Stages</h2>\n" + _table(
        rows,
        "Sizes of pruned and shared weights count gaps of four bits and codebooks, before entropy "
        "coding; the last is the file. Bits a weight: entropy, zeros included. AP in %.",
    )


def _layers(done: Compressed) -> str:
    rows = [["layer", "weights", "kept", "density", "", "values", "bits a weight"]]
    for layer in done.stages[-1].layers:
        rows.append(
            [
                escape(layer.name),
                f"{layer.weights:,}",
                f"{layer.kept:,}",
                f"{100 * layer.density:.1f} %",
                bar(layer.density),
                f"{layer.values}",
                f"{layer.entropy_bits:.2f}",
            ]
        )
    return "<h2>Layers</h2>\n" + _table(rows)


def _tensors(done: Compressed) -> str:
    rows = [["tensor of the graph", "form", "coders", "numbers", "values", "bytes", ""]]
    largest = max((t.size_bytes for t in done.encoded.tensors.values()), default=1)
    for name, tensor in done.encoded.tensors.items():
        rows.append(
            [
                escape(name),
                tensor.form,
                ", ".join(tensor.coders),
                f"{tensor.size:,}",
                f"{tensor.values}",
                f"{tensor.size_bytes:,}",
                bar(tensor.size_bytes / largest),
            ]
        )
    total = sum(t.size_bytes for t in done.encoded.tensors.values())
    rest = len(done.encoded.content) - total
    caption = (
        f"{total:,} bytes of coded tensors; {rest:,} for header, card and the rest of the graph"
    )
    return "<h2>File</h2>\n" + _table(rows, caption)


def _sensitivity(found: Sensitivity) -> str:
    head = ["layer", "weights", "1", *(f"{d:g}" for d in found.densities)]
    rows = [head]
    for curve in found.curves:
        costs = [f"{cost:.3f}" for cost in (found.base, *curve.cost)]
        rows.append([escape(curve.name), f"{curve.weights:,}", *costs])
    charts = [
        line_chart(
            f"{name} alone pruned",
            "density",
            "loss when whole / loss",
            [
                Line(
                    curve.name.rpartition(".")[2],
                    (1.0, *found.densities),
                    [min(1.0, found.base / max(c, 1e-9)) for c in (found.base, *curve.cost)],
                )
                for curve in curves
            ],
        )
        for name, curves in _groups(found.curves)
    ]
    shown = "\n".join(f"<figure>{chart}</figure>" for chart in charts)
    return (
        "<h2>Sensitivity</h2>\n"
        + _table(rows, "Loss on a fixed sample when a layer alone has a density, not retrained")
        + f'\n<div class="row">{shown}</div>'
    )


def _groups(curves: Sequence[Curve]) -> Iterable[tuple[str, list[Curve]]]:
    """Layers of one module together, at most ``LINES`` in a chart."""
    for module, group in groupby(curves, key=lambda curve: curve.name.rpartition(".")[0]):
        members = list(group)
        for i in range(0, len(members), LINES):
            part = members[i : i + LINES]
            yield (module or ", ".join(c.name for c in part)), part


def _table(rows: Sequence[Sequence[str]], caption: str = "") -> str:
    head, *rest = rows
    lines = ['<div class="table"><table>', f"<caption>{escape(caption)}</caption>"]
    lines.append("<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>")
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rest]
    return "\n".join([*lines, "</table></div>"])
