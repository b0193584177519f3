"""What a compression did: lines for a terminal, a page with tables, figures as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from squeezedet.charts import bar
from squeezedet.compression.pipeline import Compressed, Stage
from squeezedet.compression.prune import Sensitivity
from squeezedet.files import write_atomic
from squeezedet.pages import PAGE, svg, write_page

FIGURES = "compression.json"


def heading(first: Stage) -> list[str]:
    """The titles of the columns of ``summary``."""
    titles = ["stage", "size", "ratio", "density", "bits a weight"]
    return titles + ([*first.ap, "mean"] if first.ap else [])


def summary(stage: Stage, first: Stage) -> list[str]:
    """Name, size, ratio to the first stage, density, entropy and APs of a stage, for a table."""
    cells = [
        stage.name,
        f"{stage.size_bytes:,} B",
        f"{first.size_bytes / stage.size_bytes:.1f}x",
        f"{100 * stage.density:.1f} %",
        f"{stage.entropy_bits:.2f}",
    ]
    if stage.ap:
        mean = sum(stage.ap.values()) / len(stage.ap)
        cells += [f"{100 * value:.1f}" for value in (*stage.ap.values(), mean)]
    return cells


def write_report(folder: Path, done: Compressed, command: str = "") -> Path:
    """Write ``index.html`` and ``compression.json`` into a folder; returns the path of the page.

    Raises:
        SqueezeDetError: the folder cannot be written.
        MissingExtraError: jinja2 is not installed.
    """
    found = done.sensitivity
    figures = {
        "command": command,
        "stages": [stage.to_dict() for stage in done.stages],
        "layers": [asdict(layer) for layer in done.stages[-1].layers],
        "tensors": {name: asdict(kind) for name, kind in done.encoded.summaries.items()},
        "sensitivity": asdict(found) if found else None,
    }
    write_atomic(folder / FIGURES, json.dumps(figures, indent=1) + "\n")
    first = done.stages[0]
    stages = [[_bar(s.size_bytes / first.size_bytes), *summary(s, first)] for s in done.stages]
    coded = sum(tensor.size_bytes for tensor in done.encoded.summaries.values())
    return write_page(
        folder / PAGE,
        "compression.html",
        title=f"Compression of {done.source.name}",
        command=command,
        warning=done.warning,
        stages=[["", *heading(first)], *stages],
        layers=_layers(done),
        tensors=_tensors(done),
        coded_bytes=coded,
        other_bytes=len(done.encoded.content) - coded,
        costs=_costs(found) if found else None,
    )


def _bar(part: float) -> str:
    """A bar that a template puts in as it is."""
    return svg(bar(part))  # type: ignore[no-any-return]


def _layers(done: Compressed) -> list[list[str]]:
    rows = [["layer", "weights", "kept", "density", "", "values", "bits a weight"]]
    for la in done.stages[-1].layers:
        counts = [f"{la.weights:,}", f"{la.kept:,}", f"{100 * la.density:.1f} %", _bar(la.density)]
        rows.append([la.name, *counts, f"{la.values}", f"{la.entropy_bits:.2f}"])
    return rows


def _tensors(done: Compressed) -> list[list[str]]:
    tensors = done.encoded.summaries
    largest = max((t.size_bytes for t in tensors.values()), default=1)
    rows = [["tensor of the graph", "form", "numbers", "values", "bytes", ""]]
    for name, t in tensors.items():
        size = [f"{t.size_bytes:,}", _bar(t.size_bytes / largest)]
        rows.append([name, t.form, f"{t.size:,}", f"{t.values}", *size])
    return rows


def _costs(found: Sensitivity) -> list[list[str]]:
    rows = [["layer", "weights", "1", *(f"{d:g}" for d in found.densities)]]
    for curve in found.curves:
        costs = [f"{cost:.3f}" for cost in (found.base, *curve.cost)]
        rows.append([curve.name, f"{curve.weights:,}", *costs])
    return rows
