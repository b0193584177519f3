"""Detectors side by side as in the paper's Tables 2 and 3 and Fig. 6: its rows, and models of ours, measured here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from squeezedet.benchmark.latency import candidates_of, cost_of, pictures_of
from squeezedet.benchmark.meter import EnergyReading, Meter, choose
from squeezedet.benchmark.turns import Candidate, summarize, take_turns
from squeezedet.charts import Axis, Point, scatter_chart
from squeezedet.cost.layers import FLOAT_BYTES, MIB
from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.evaluation.evaluate import apply_protocol, compare_names, read_data
from squeezedet.evaluation.kitti import Rules, rules_for
from squeezedet.evaluation.report import EvaluationInput, Labels
from squeezedet.media.images import read_image
from squeezedet.runtime import bundle
from squeezedet.runtime.card import Card

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

    @property
    def title(self) -> str:
        """What a line of a table begins with."""
        return f"{self.name}, {self.engine}" if self.engine else self.name

    def class_ap(self, name: str) -> float | None:
        """Mean AP of a class over the three levels, as in the paper's Fig. 6."""
        levels = self.ap.get(name)
        return sum(levels) / len(levels) if levels else None

    def record(self) -> dict[str, Any]:
        """Every figure by name; AP by class and level."""
        ap = {name: dict(zip(LEVELS, levels, strict=True)) for name, levels in self.ap.items()}
        return asdict(self) | {"ap": ap}


def classes_of(rows: Sequence[ComparisonRow]) -> list[str]:
    """The paper's classes in its order, then what else there is."""
    return list(dict.fromkeys([*PAPER_CLASSES, *(name for row in rows for name in row.ap)]))


# ------------------------------------------------------------ measured here

WARM_UP = 3


def compare(
    models: Sequence[str],
    data: Path | None = None,
    *,
    split: str | None = None,
    rules: Rules = "paper",
    engine: str | None = None,
    threads: int | None = None,
    rounds: int = 50,
    energy: str = "auto",
    seconds: float = 10.0,
    trust_model: bool = False,
) -> tuple[list[ComparisonRow], list[str]]:
    """Measure models: 11-point AP by KITTI's rules, size, operations, speed, joules.

    Returns the measured rows, and what a reader should know, one sentence each.

    Args:
        models: names or files.
        data: labelled images of any layout to find AP on; None for what the cards say.
        split: of the data; see ``squeezedet.evaluate``.
        rules: KITTI's: of the ``paper``'s tool, or the server's ``current`` ones.
        engine: what runs them; None for each file's own.
        threads: processor threads; None for all cores.
        rounds: timed, by turns.
        energy: the meter: ``auto``, or see ``squeezedet.benchmark.meter``.
        seconds: how long each model works for its joules.
        trust_model: open a program that was not exported here; see ``squeezedet.load``.

    Raises:
        UsageError, DataError, ModelError: as ``squeezedet.evaluate``.
    """
    labels = read_data(data, split, raw=True) if data else None
    chosen = choose(energy)
    candidates = candidates_of(models, [engine], threads=threads, trust_model=trust_model)
    with pictures_of(None) as demo:
        pictures = list(labels.images or ()) if labels else demo
        turns = take_turns(candidates, pictures, rounds=rounds)
        readings = [_energy(candidate, chosen.meter, pictures, seconds) for candidate in candidates]
    notes = [*(c.note for c in candidates if c.note), f"energy meter: {chosen.why}"]
    notes += labels.notes if labels else ()
    rows = []
    for k, candidate in enumerate(candidates):
        if labels:
            accuracy = _on_data(candidate, labels, rules, f"{data} {labels.split}", notes)
        else:
            accuracy = of_card(bundle.read_card(bundle.find(models[k])))
        latency_ms, reading = summarize(turns.timings[k].end_to_end).median, readings[k]
        rows.append(
            ComparisonRow(
                name=candidate.name,
                engine=candidate.engine,
                input=candidate.input,
                parameters=candidate.parameters,
                size_mib=FLOAT_BYTES * candidate.parameters / MIB,
                file_mb=candidate.file_bytes / 1e6,
                latency_ms=latency_ms,
                frames_per_s=1000 / latency_ms,
                power_w=reading.power_w,
                energy_j=reading.energy_per_frame_j,
                cpu_s=reading.cpu_per_frame_s,
                energy_source=f"{reading.source}; {reading.idle}",
                **accuracy,
                **_cost(models[k], notes),
            )
        )
    return rows, list(dict.fromkeys(notes))


def _energy(candidate: Candidate, meter: Meter, pictures: Sequence[Path], seconds: float) -> EnergyReading:
    """What a frame costs, from decoded pixels to boxes, in a loop of so many seconds."""
    frame = read_image(pictures[0])
    for _ in range(WARM_UP):
        candidate.detect(frame)
    frames, end = 0, time.perf_counter() + seconds
    with meter.measure() as measurement:
        while not frames or time.perf_counter() < end:
            candidate.detect(frame)
            frames += 1
    return measurement.reading(frames)


def _cost(model: str, notes: list[str]) -> dict[str, Any]:
    """Operations and activations at the size that the model's card names."""
    try:
        cost = cost_of(model)
    except (MissingExtraError, ModelError) as error:
        notes.append(f"operations are not counted: {error}")
        return {}
    return {"flops_e9": cost.flops_paper / 1e9, "activation_mib": cost.activation_bytes / MIB}


def _on_data(candidate: Candidate, labels: Labels, rules: Rules, where: str, notes: list[str]) -> dict[str, Any]:
    """AP of a model on labelled images; every detection counts, whatever its score."""
    found = [candidate.detect_all(read_image(path)) for path in labels.images or ()]
    notes += compare_names(found[0].names, labels, f"the model {candidate.name}")
    classes = rules_for(found[0].names)
    side = EvaluationInput(labels, found, classes)
    result, _ = apply_protocol(side, "kitti", rules)
    return _accuracy(result.to_dict(), f"{where}: ")


def of_card(card: Card) -> dict[str, Any]:
    """AP as the card of a model tells it, if it was found by KITTI's rules.

    Raises:
        ModelError: the card's results are damaged.
    """
    if card.results.get("protocol") != "kitti" or not card.results.get("results"):
        return {}
    try:
        return _accuracy(card.results, "its card: ")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{card.name}: the card's results are none of a KITTI evaluation") from error


def _accuracy(result: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A KITTI result as ``KittiResult.to_dict`` gives it, to AP in %."""
    counts = result["counts"]
    ap = {
        name.lower(): [100 * float(levels[level]["ap11"]) if levels else 0.0 for level in LEVELS]
        for name, levels in result["results"].items()
    }
    return {
        "ap": ap,
        "mean_ap": 100 * float(result["map11"]),
        "ap_source": f"{where}{counts['images']} images, {counts['objects']} objects, rules {result['rules']}",
    }


# ------------------------------------------------------------ as cells, the heading first

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
        table.append([row.title, *ap, *ends, row.quoted or "measured here"])
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
        table.append([row.title, *cells, row.quoted or "measured here"])
    return table


def source_table(rows: Sequence[ComparisonRow]) -> list[list[str]]:
    """Where the figures of each measured row come from; all columns are words."""
    told = [[row.title, row.ap_source or "-", row.energy_source or "-"] for row in rows if not row.quoted]
    return [["model", "AP", "energy"], *told]


def _cell(row: ComparisonRow, value: float | None, digits: int) -> str:
    """A figure to so many digits; a quoted one as it is printed in the paper."""
    if value is None:
        return "-"
    return str(value) if row.quoted else f"{value:,.{digits}f}"


# ------------------------------------------------------------ Fig. 6

FIGURES = (
    ("speed", "frames_per_s", "cyclist", "Speed and AP of cyclists", "frames per second"),
    ("size", "size_mib", "car", "Size and AP of cars", "model size, MiB"),
)
"""Fig. 6a and 6b: the file's name, the figure that is compared with the mean AP of a class, title and axis."""


def draw_plots(rows: Sequence[ComparisonRow]) -> dict[str, str]:
    """Fig. 6 as SVG by the file's name; only what has a point."""
    drawn = {name: _plot(rows, *what) for name, *what in FIGURES}
    return {name: picture for name, picture in drawn.items() if picture}


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


# ------------------------------------------------------------ quoted: Tables 2 and 3, and the supplement's Table 2

SCALE_UP, SCALE_DOWN = "SqueezeDet x1.5", "SqueezeDet x0.75"


def _quoted(name: str, tables: str, ap: tuple[float, ...] = (), **figures: Any) -> ComparisonRow:
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
    _quoted("SubCNN", OTHERS, (90.8, 89.0, 79.3, 79.5, 71.1, 62.7, 83.3, 71.3, 66.4),
         mean_ap=77.0, frames_per_s=0.2),
    _quoted("MS-CNN", OTHERS, (90.0, 89.0, 76.1, 84.1, 75.5, 66.1, 83.9, 73.7, 68.3),
         mean_ap=78.5, frames_per_s=2.5),
    _quoted("PNET", OTHERS, (81.8, 83.6, 74.2, 74.3, 58.6, 51.7, 77.2, 64.7, 60.4),
         mean_ap=69.6, frames_per_s=10),
    _quoted("Pie", OTHERS, (89.4, 89.2, 74.2, 84.6, 76.3, 67.6, 84.9, 73.2, 67.6),
         mean_ap=78.6, frames_per_s=0.83),
    _quoted("Faster R-CNN + VGG16", DETECTORS, (92.9, 87.9, 77.3),
         size_mib=485, power_w=200.1, frames_per_s=1.7, energy_j=117.7),
    _quoted("Faster R-CNN + AlexNet", DETECTORS, (94.7, 84.8, 68.3),
         size_mib=240, power_w=143.1, frames_per_s=2.9, energy_j=49.3),
    _quoted("YOLO", YOLO, size_mib=753, power_w=187.3, frames_per_s=25.8, energy_j=7.3),
    _quoted("SqueezeDet", ALL, (90.2, 84.7, 73.9, 82.9, 75.4, 72.1, 77.1, 68.3, 65.8), mean_ap=76.7,
         size_mib=7.9, flops_e9=9.7, activation_mib=117.0, power_w=80.9, frames_per_s=57.2, energy_j=1.4),
    _quoted(SCALE_UP, VARIANTS, mean_ap=72.4,
         size_mib=7.9, flops_e9=22.5, activation_mib=263.3, power_w=89.9, frames_per_s=31.3, energy_j=2.9),
    _quoted(SCALE_DOWN, VARIANTS, mean_ap=73.2,
         size_mib=7.9, flops_e9=5.3, activation_mib=65.8, power_w=77.8, frames_per_s=92.5, energy_j=0.84),
    _quoted("SqueezeDet, 16 anchors", VARIANTS, mean_ap=66.9,
         size_mib=9.4, flops_e9=11.0, activation_mib=117.4, power_w=82.9, frames_per_s=51.4, energy_j=1.6),
    _quoted("SqueezeDet+", ALL, (90.4, 87.1, 78.9, 87.6, 80.3, 78.1, 81.4, 71.3, 68.5), mean_ap=80.4,
         size_mib=26.8, flops_e9=77.2, activation_mib=252.7, power_w=128.3, frames_per_s=32.1, energy_j=4.0),
    _quoted("VGG16+ConvDet", DETECTORS, (93.5, 88.1, 79.2, 85.2, 78.4, 75.2, 77.9, 69.1, 65.1), mean_ap=79.1,
         size_mib=57.4, flops_e9=288.4, activation_mib=540.4, power_w=153.9, frames_per_s=16.6, energy_j=9.3),
    _quoted("ResNet50+ConvDet", DETECTORS, (92.9, 87.9, 79.4, 85.0, 78.5, 76.6, 67.3, 61.6, 55.6), mean_ap=76.1,
         size_mib=35.1, flops_e9=61.3, activation_mib=369.0, power_w=95.4, frames_per_s=22.5, energy_j=4.2),
)  # fmt: skip
