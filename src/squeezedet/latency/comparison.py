"""Detectors side by side as in the paper's Tables 2 and 3: text, CSV, JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from squeezedet.media.table import align

LEVELS = ("easy", "moderate", "hard")
PAPER_CLASSES = ("car", "cyclist", "pedestrian")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One detector; None is not known or not measured.

    Attributes:
        name: of the detector.
        quoted: which tables a quoted row comes from; empty for a measured one.
        engine: what ran it.
        input: size of its input, in words.
        ap: class -> AP of easy, moderate, hard, 11 points, in %.
        mean_ap: mean of all of them, in %.
        ap_source: which images and rules.
        parameters: how many numbers it learnt.
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
        found["ap"] = {
            name: dict(zip(LEVELS, levels, strict=True)) for name, levels in self.ap.items()
        }
        return found


def classes_of(rows: Sequence[Row]) -> list[str]:
    """The paper's classes in its order, then what else there is."""
    found = dict.fromkeys(PAPER_CLASSES)
    found.update(dict.fromkeys(name for row in rows for name in row.ap))
    return list(found)


def as_csv(rows: Sequence[Row]) -> str:
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


def as_text(rows: Sequence[Row]) -> str:
    """Two tables: accuracy, size and speed; then what it costs. Each row says where it is from."""
    ours = [row for row in rows if not row.quoted]
    told = [
        "AP in % (11 points; easy, moderate, hard), size, speed: the paper's Table 2\n"
        + _aligned(_accuracy(rows)),
        "cost: the paper's Table 3 and Table 2 of its supplement\n" + _aligned(_cost(rows)),
        *([_sources(ours)] if ours else []),
    ]
    if len(ours) < len(rows):
        told.append(
            "Quoted rows are the paper's (arXiv 1612.01051), as printed: other images, and a "
            "TITAN X. They were not measured here."
        )
    return "\n\n".join(told)


def _aligned(table: list[list[str]]) -> str:
    return align(table, left=(0, len(table[0]) - 1), indent="  ")


def _sources(rows: Sequence[Row]) -> str:
    """Where the figures of each measured row come from."""
    lines = [["model", "AP", "energy"]]
    for row in rows:
        lines.append([_name(row), row.ap_source or "-", row.energy_source or "-"])
    return "where the figures come from\n" + align(lines, (0, 1, 2), "  ")


def _name(row: Row) -> str:
    return f"{row.name}, {row.engine}" if row.engine else row.name


def _accuracy(rows: Sequence[Row]) -> list[list[str]]:
    classes = classes_of(rows)
    heads = [head for name in classes for head in (f"{name} E", "M", "H")]
    table = [["model", *heads, "mean", "size, MiB", "frames/s", "from"]]
    for row in rows:
        ap = [
            _cell(row, row.ap[name][k] if name in row.ap else None, 1)
            for name in classes
            for k in range(len(LEVELS))
        ]
        ends = [_cell(row, value, 1) for value in (row.mean_ap, row.size_mib, row.frames_per_s)]
        table.append([_name(row), *ap, *ends, row.quoted or "measured here"])
    return table


def _cost(rows: Sequence[Row]) -> list[list[str]]:
    head = ["model", "mean AP", "latency, ms", "frames/s", "10^9 FLOPs", "parameters", "size, MiB"]
    table = [[*head, "file, MB", "activations, MiB", "W", "J/frame", "CPU s/frame", "from"]]
    for row in rows:
        table.append(
            [
                _name(row),
                _cell(row, row.mean_ap, 1),
                _cell(row, row.latency_ms, 1),
                _cell(row, row.frames_per_s, 1),
                _cell(row, row.flops_e9, 1),
                "-" if row.parameters is None else f"{row.parameters:,}",
                _cell(row, row.size_mib, 1),
                _cell(row, row.file_mb, 2),
                _cell(row, row.activation_mib, 1),
                _cell(row, row.power_w, 1),
                _cell(row, row.energy_j, 3),
                _cell(row, row.cpu_s, 3),
                row.quoted or "measured here",
            ]
        )
    return table


def _cell(row: Row, value: float | None, digits: int) -> str:
    """A figure to so many digits; a quoted one as it is printed in the paper."""
    if value is None:
        return "-"
    return str(value) if row.quoted else f"{value:.{digits}f}"
