"""Detectors side by side as in the paper's Tables 2 and 3: rows, cells, CSV, and Fig. 6."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from squeezedet.charts import Axis, Point, scatter_chart
from squeezedet.files import write_atomic

LEVELS = ("easy", "moderate", "hard")
PAPER_CLASSES = ("car", "cyclist", "pedestrian")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One detector; None is not known or not measured.

    Attributes:
        name: of the detector.
        quoted: which tables a quoted row comes from; empty for a measured one.
        engine: what ran it.
        input: size of its input, in words.
        ap: class -> AP of easy, moderate, hard, 11 points, in %.
        mean_ap: mean of all of them, in %.
        ap_source: which images and rules.
        parameters: how many numbers it learned.
        size_mib: its parameters in float32, 2^20 bytes: the papers' model size.
        file_mb: its file, 10^6 bytes.
        flops_e9: 10^9 operations of a frame by the paper's counter.
        activation_mib: activations of a frame by the paper's rules.
        latency_ms: median from decoded pixels to boxes.
        frames_per_s: one stream.
        power_w: mean power.
        energy_j: joules per frame.
        cpu_s: processor seconds per frame.
        energy_source: meter and what was done about idle power.
    """

    name: str
    quoted: str = ""
    engine: str = ""
    input: str = ""
    ap: Mapping[str, Sequence[float]] = field(default_factory=dict)
    mean_ap: float | None = None
    ap_source: str = ""
    parameters: int | None = None
    size_mib: float | None = None
    file_mb: float | None = None
    flops_e9: float | None = None
    activation_mib: float | None = None
    latency_ms: float | None = None
    frames_per_s: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    cpu_s: float | None = None
    energy_source: str = ""

    def class_ap(self, name: str) -> float | None:
        """Mean AP of a class over the three levels, as in the paper's Fig. 6."""
        levels = self.ap.get(name)
        return sum(levels) / len(levels) if levels else None

    def record(self) -> dict[str, Any]:
        """Every figure by name; AP by class and level."""
        found: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        found["ap"] = {name: dict(zip(LEVELS, levels, strict=True)) for name, levels in self.ap.items()}
        return found


def classes_of(rows: Sequence[ComparisonRow]) -> list[str]:
    """The paper's classes in its order, then what else there is."""
    found = dict.fromkeys(PAPER_CLASSES)
    found.update(dict.fromkeys(name for row in rows for name in row.ap))
    return list(found)


def as_csv(rows: Sequence[ComparisonRow]) -> str:
    """A line for each row; AP in columns like ``ap_car_easy``; what is not known is empty."""
    classes = classes_of(rows)
    out = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        record = row.record()
        ap = record.pop("ap")
        for name in classes:
            for level in LEVELS:
                record[f"ap_{name}_{level}"] = ap.get(name, {}).get(level)
        if writer is None:
            writer = csv.DictWriter(out, list(record), lineterminator="\n")
            writer.writeheader()
        writer.writerow(record)
    return out.getvalue()


FIGURES = (
    ("speed", "frames_per_s", "cyclist", "Speed and AP of cyclists", "frames per second"),
    ("size", "size_mib", "car", "Size and AP of cars", "model size, MiB"),
)
"""Fig. 6a and 6b: the file's name, the figure that is compared with the mean AP of a class, title and axis."""


def draw_plots(rows: Sequence[ComparisonRow]) -> dict[str, str]:
    """Fig. 6 as SVG by the file's name; only what has a point."""
    drawn = {name: _plot(rows, *what) for name, *what in FIGURES}
    return {name: picture for name, picture in drawn.items() if picture}


def write_plots(folder: Path, rows: Sequence[ComparisonRow]) -> list[Path]:
    """Write ``speed.svg`` and ``size.svg``, those that have a point; their paths."""
    written = []
    for name, picture in draw_plots(rows).items():
        written.append(folder / f"{name}.svg")
        write_atomic(written[-1], picture)
    return written


def _plot(rows: Sequence[ComparisonRow], figure: str, name: str, title: str, axis: str) -> str | None:
    points = [
        Point(row.name, value, ap, group=int(bool(row.quoted)))
        for row in rows
        if (value := getattr(row, figure)) and (ap := row.class_ap(name)) is not None
    ]
    if not points:
        return None
    y = Axis(f"AP, {name}, %", high=100)
    return scatter_chart(title, points, x=Axis(axis, log=True), y=y, groups=("measured", "quoted"))


def _name(row: ComparisonRow) -> str:
    return f"{row.name}, {row.engine}" if row.engine else row.name


ACCURACY_TITLE = "AP in % (11 points; easy, moderate, hard), size, speed: the paper's Table 2"
COST_TITLE = "cost: the paper's Table 3 and Table 2 of its supplement"
SOURCES_TITLE = "where the figures come from"
QUOTED_NOTE = (
    "Quoted rows are the paper's (arXiv 1612.01051), as printed: other images, and a TITAN X. "
    "They were not measured here."
)


def accuracy_table(rows: Sequence[ComparisonRow]) -> list[list[str]]:
    """A line for each row, the heading first; the first and the last column are words."""
    classes = classes_of(rows)
    heads = [head for name in classes for head in (f"{name} E", "M", "H")]
    table = [["model", *heads, "mean", "size, MiB", "frames/s", "from"]]
    for row in rows:
        ap = [_cell(row, row.ap[name][k] if name in row.ap else None, 1) for name in classes for k in range(3)]
        ends = [_cell(row, value, 1) for value in (row.mean_ap, row.size_mib, row.frames_per_s)]
        table.append([_name(row), *ap, *ends, row.quoted or "measured here"])
    return table


COST_COLUMNS = {
    "mean AP": ("mean_ap", 1),
    "latency, ms": ("latency_ms", 1),
    "frames/s": ("frames_per_s", 1),
    "10^9 FLOPs": ("flops_e9", 1),
    "parameters": ("parameters", 0),
    "size, MiB": ("size_mib", 1),
    "file, MB": ("file_mb", 2),
    "activations, MiB": ("activation_mib", 1),
    "W": ("power_w", 1),
    "J/frame": ("energy_j", 3),
    "CPU s/frame": ("cpu_s", 3),
}
"""Heading -> the field, and its digits."""


def cost_table(rows: Sequence[ComparisonRow]) -> list[list[str]]:
    """As ``accuracy_table``."""
    table = [["model", *COST_COLUMNS, "from"]]
    for row in rows:
        cells = [_cell(row, getattr(row, field), digits) for field, digits in COST_COLUMNS.values()]
        table.append([_name(row), *cells, row.quoted or "measured here"])
    return table


def source_table(rows: Sequence[ComparisonRow]) -> list[list[str]]:
    """Where the figures of each measured row come from; all columns are words."""
    measured = [row for row in rows if not row.quoted]
    told = [[_name(row), row.ap_source or "-", row.energy_source or "-"] for row in measured]
    return [["model", "AP", "energy"], *told]


def _cell(row: ComparisonRow, value: float | None, digits: int) -> str:
    """A figure to so many digits; a quoted one as it is printed in the paper."""
    if value is None:
        return "-"
    return str(value) if row.quoted else f"{value:,.{digits}f}"


# ------------------------------------------------------------ quoted rows

SCALE_UP, SCALE_DOWN = "SqueezeDet x1.5", "SqueezeDet x0.75"


def _row(name: str, tables: str, ap: tuple[float, ...] = (), **figures: Any) -> ComparisonRow:
    """A quoted detector: AP of each class at easy, moderate, hard, and other fields of the row."""
    n = len(LEVELS)
    return ComparisonRow(
        name=name,
        quoted=f"quoted: {tables}",
        ap={PAPER_CLASSES[k]: ap[n * k : n * k + n] for k in range(len(ap) // n)},
        ap_source="the paper's" if ap or "mean_ap" in figures else "",
        energy_source="NVML, TITAN X, idle not subtracted" if "power_w" in figures else "",
        **figures,
    )


ALL, DETECTORS = "Tables 2, 3, supplement 2", "Table 2, supplement 2"
VARIANTS, OTHERS, YOLO = "Table 3, supplement 2", "Table 2", "supplement 2"
ROWS = (
    _row("SubCNN", OTHERS, (90.8, 89.0, 79.3, 79.5, 71.1, 62.7, 83.3, 71.3, 66.4),
         mean_ap=77.0, frames_per_s=0.2),
    _row("MS-CNN", OTHERS, (90.0, 89.0, 76.1, 84.1, 75.5, 66.1, 83.9, 73.7, 68.3),
         mean_ap=78.5, frames_per_s=2.5),
    _row("PNET", OTHERS, (81.8, 83.6, 74.2, 74.3, 58.6, 51.7, 77.2, 64.7, 60.4),
         mean_ap=69.6, frames_per_s=10),
    _row("Pie", OTHERS, (89.4, 89.2, 74.2, 84.6, 76.3, 67.6, 84.9, 73.2, 67.6),
         mean_ap=78.6, frames_per_s=0.83),
    _row("Faster R-CNN + VGG16", DETECTORS, (92.9, 87.9, 77.3),
         size_mib=485, power_w=200.1, frames_per_s=1.7, energy_j=117.7),
    _row("Faster R-CNN + AlexNet", DETECTORS, (94.7, 84.8, 68.3),
         size_mib=240, power_w=143.1, frames_per_s=2.9, energy_j=49.3),
    _row("YOLO", YOLO, size_mib=753, power_w=187.3, frames_per_s=25.8, energy_j=7.3),
    _row("SqueezeDet", ALL, (90.2, 84.7, 73.9, 82.9, 75.4, 72.1, 77.1, 68.3, 65.8), mean_ap=76.7,
         size_mib=7.9, flops_e9=9.7, activation_mib=117.0, power_w=80.9, frames_per_s=57.2, energy_j=1.4),
    _row(SCALE_UP, VARIANTS, mean_ap=72.4,
         size_mib=7.9, flops_e9=22.5, activation_mib=263.3, power_w=89.9, frames_per_s=31.3, energy_j=2.9),
    _row(SCALE_DOWN, VARIANTS, mean_ap=73.2,
         size_mib=7.9, flops_e9=5.3, activation_mib=65.8, power_w=77.8, frames_per_s=92.5, energy_j=0.84),
    _row("SqueezeDet, 16 anchors", VARIANTS, mean_ap=66.9,
         size_mib=9.4, flops_e9=11.0, activation_mib=117.4, power_w=82.9, frames_per_s=51.4, energy_j=1.6),
    _row("SqueezeDet+", ALL, (90.4, 87.1, 78.9, 87.6, 80.3, 78.1, 81.4, 71.3, 68.5), mean_ap=80.4,
         size_mib=26.8, flops_e9=77.2, activation_mib=252.7, power_w=128.3, frames_per_s=32.1, energy_j=4.0),
    _row("VGG16+ConvDet", DETECTORS, (93.5, 88.1, 79.2, 85.2, 78.4, 75.2, 77.9, 69.1, 65.1), mean_ap=79.1,
         size_mib=57.4, flops_e9=288.4, activation_mib=540.4, power_w=153.9, frames_per_s=16.6, energy_j=9.3),
    _row("ResNet50+ConvDet", DETECTORS, (92.9, 87.9, 79.4, 85.0, 78.5, 76.6, 67.3, 61.6, 55.6), mean_ap=76.1,
         size_mib=35.1, flops_e9=61.3, activation_mib=369.0, power_w=95.4, frames_per_s=22.5, energy_j=4.2),
)  # fmt: skip
