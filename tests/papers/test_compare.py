"""The rows that are quoted, the tables, and Fig. 6."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from squeezedet.papers.compare import (
    PAPER_CLASSES,
    ROWS,
    ComparisonRow,
    accuracy_table,
    classes_of,
    cost_table,
    draw_plots,
    source_table,
)

BY_NAME = {row.name: row for row in ROWS}
OURS = ComparisonRow(
    name="street",
    engine="onnxruntime",
    ap={"car": [70.0, 60.0, 50.0], "van": [10.0, 20.0, 30.0]},
    mean_ap=40.0,
    ap_source="roads val: 50 images, 200 objects, rules paper",
    parameters=2_082_120,
    size_mib=7.943,
    file_mb=4.24,
    flops_e9=10.649,
    activation_mib=124.14,
    latency_ms=70.0,
    frames_per_s=14.3,
    cpu_s=0.14,
    energy_source="no energy meter",
)

# ------------------------------------------------------------------ quoted rows

# Table 2 of the paper: car, cyclist, pedestrian (easy, medium, hard), mAP, MB, frames/s.
TABLE_2 = """
SqueezeDet             | 90.2 84.7 73.9 82.9 75.4 72.1 77.1 68.3 65.8 76.7  7.9 57.2
SqueezeDet+            | 90.4 87.1 78.9 87.6 80.3 78.1 81.4 71.3 68.5 80.4 26.8 32.1
VGG16+ConvDet          | 93.5 88.1 79.2 85.2 78.4 75.2 77.9 69.1 65.1 79.1 57.4 16.6
ResNet50+ConvDet       | 92.9 87.9 79.4 85.0 78.5 76.6 67.3 61.6 55.6 76.1 35.1 22.5
"""
# Table 2 of the supplement: MB, 10^9 FLOPs, activations MB, W, frames/s, J, mAP.
SUPPLEMENT = """
SqueezeDet             | 7.9   9.7 117.0  80.9 57.2   1.4 76.7
SqueezeDet x1.5        | 7.9  22.5 263.3  89.9 31.3   2.9 72.4
SqueezeDet x0.75       | 7.9   5.3  65.8  77.8 92.5  0.84 73.2
SqueezeDet, 16 anchors | 9.4  11.0 117.4  82.9 51.4   1.6 66.9
SqueezeDet+            | 26.8  77.2 252.7 128.3 32.1   4.0 80.4
VGG16+ConvDet          | 57.4 288.4 540.4 153.9 16.6   9.3 79.1
ResNet50+ConvDet       | 35.1  61.3 369.0  95.4 22.5   4.2 76.1
Faster R-CNN + VGG16   | 485     -     - 200.1  1.7 117.7    -
Faster R-CNN + AlexNet | 240     -     - 143.1  2.9  49.3    -
YOLO                   | 753     -     - 187.3 25.8   7.3    -
"""


def golden(table: str) -> dict[str, list[float | None]]:
    rows = {}
    for line in table.strip().splitlines():
        name, cells = line.split("|")
        rows[name.strip()] = [None if cell == "-" else float(cell) for cell in cells.split()]
    return rows


@pytest.mark.parametrize(("name", "figures"), golden(TABLE_2).items())
def test_rows_of_table_2(name: str, figures: list[float]) -> None:
    row = BY_NAME[name]
    assert [ap for c in PAPER_CLASSES for ap in row.ap[c]] == figures[:9]
    assert [row.mean_ap, row.size_mib, row.frames_per_s] == figures[9:]
    assert row.quoted.startswith("quoted: Table")


@pytest.mark.parametrize(("name", "figures"), golden(SUPPLEMENT).items())
def test_rows_of_the_supplement(name: str, figures: list[float | None]) -> None:
    row = BY_NAME[name]
    size, flops, activations, watts, fps, joules, mean = figures
    assert (row.size_mib, row.flops_e9, row.activation_mib) == (size, flops, activations)
    assert (row.power_w, row.frames_per_s, row.energy_j) == (watts, fps, joules)
    assert row.mean_ap == mean
    assert watts and fps
    digits = 2 if joules == 0.84 else 1
    assert round(watts / fps, digits) == joules  # the supplement's equation
    assert "supplement 2" in row.quoted


@pytest.mark.parametrize("row", [row for row in ROWS if len(row.ap) == 3], ids=lambda r: r.name)
def test_the_printed_mean_is_that_of_the_nine(row: ComparisonRow) -> None:
    nine = [ap for levels in row.ap.values() for ap in levels]
    assert row.mean_ap == pytest.approx(sum(nine) / 9, abs=0.051)


@pytest.mark.shared
def test_every_quoted_figure_stands_in_the_paper(shared: Path) -> None:
    paper = (shared / "papers" / "squeezedet-paper.md").read_text(encoding="utf-8")
    cells = [[float(c) for c in re.findall(r"(?<=\t)\d+\.?\d*", line)]
             for line in paper.splitlines() if line.count("\t") > 4]  # fmt: skip
    for row in ROWS:
        if row.ap:
            ap = [value for levels in row.ap.values() for value in levels]
            ends = [x for x in (row.mean_ap, row.size_mib, row.frames_per_s) if x is not None]
            assert ap + ends in cells, row.name
        if row.energy_j:
            figures = (row.size_mib, row.flops_e9, row.activation_mib, row.power_w)
            known = [*figures, row.frames_per_s, row.energy_j, row.mean_ap]
            assert [x for x in known if x is not None] in cells, row.name


# ------------------------------------------------------------------ tables


def test_both_tables_say_where_each_row_is_from() -> None:
    rows = [OURS, *ROWS]
    accuracy, cost, sources = accuracy_table(rows), cost_table(rows), source_table(rows)
    assert {"car E", "cyclist E", "van E"} <= set(accuracy[0])
    assert " ".join(accuracy[1]) == (
        "street, onnxruntime 70.0 60.0 50.0 - - - - - - 10.0 20.0 30.0 40.0 7.9 14.3 measured here"
    )
    squeezedet = next(line for line in cost if line[0] == "SqueezeDet")
    assert squeezedet == [
        *("SqueezeDet", "76.7", "-", "57.2", "9.7", "-", "7.9", "-", "117.0", "80.9", "1.4", "-"),
        "quoted: Tables 2, 3, supplement 2",
    ]
    assert [line[-1] for line in cost[1:]] == [row.quoted or "measured here" for row in rows]
    assert cost[1][5] == "2,082,120"
    assert sources[1:] == [["street, onnxruntime", OURS.ap_source, OURS.energy_source]]


def test_quoted_figures_are_printed_as_in_the_paper() -> None:
    rows = [BY_NAME["SqueezeDet x0.75"], BY_NAME["PNET"], BY_NAME["Pie"]]
    cells = {cell for line in (*accuracy_table(rows), *cost_table(rows)) for cell in line}
    assert {"0.84", "0.83", "10", "65.8"} <= cells


def test_records_name_the_levels() -> None:
    record = OURS.record()
    assert record["ap"]["van"] == {"easy": 10.0, "moderate": 20.0, "hard": 30.0}
    assert record["latency_ms"] == 70.0 and record["power_w"] is None


def test_classes_of_the_paper_come_first() -> None:
    assert classes_of([OURS, *ROWS]) == ["car", "cyclist", "pedestrian", "van"]


# ------------------------------------------------------------------ Fig. 6


def discs(svg: str) -> dict[str, tuple[float, float, str]]:
    """Name -> x, y, fill of each disc that says what it is."""
    space = "{http://www.w3.org/2000/svg}"
    found = {}
    for circle in ET.fromstring(svg).iter(f"{space}circle"):
        title = circle.find(f"{space}title")
        if title is not None and title.text:
            x, y = float(circle.get("cx", "0")), float(circle.get("cy", "0"))
            found[title.text.split(":")[0]] = (x, y, circle.get("fill", ""))
    return found


def test_fig_6_holds_every_detector_that_has_both_figures() -> None:
    ours = ComparisonRow(name="<ours>", ap={"cyclist": [60.0, 50.0, 40.0], "car": [9, 9, 9]},
               frames_per_s=14.3, size_mib=7.9)  # fmt: skip
    drawn = draw_plots([ours, *ROWS])
    speed, size = drawn["speed"], drawn["size"]
    assert set(discs(speed)) == {
        *("<ours>", "SubCNN", "MS-CNN", "PNET", "Pie", "SqueezeDet", "SqueezeDet+"),
        *("VGG16+ConvDet", "ResNet50+ConvDet"),
    }
    assert set(discs(size)) == {
        *("<ours>", "Faster R-CNN + VGG16", "Faster R-CNN + AlexNet", "SqueezeDet"),
        *("SqueezeDet+", "VGG16+ConvDet", "ResNet50+ConvDet"),
    }
    found = discs(speed)
    assert found["<ours>"][2] != "none" and found["SqueezeDet"][2] == "none"
    order = sorted(found, key=lambda name: found[name][0])
    assert order[0] == "SubCNN" and order[-2:] == ["SqueezeDet+", "SqueezeDet"]
    assert found["SqueezeDet+"][1] == min(y for _, y, _ in found.values())  # best is highest


def test_without_figures_there_is_no_plot() -> None:
    row = ComparisonRow(name="street", frames_per_s=14.0, ap={"van": [1.0, 1.0, 1.0]})
    assert draw_plots([row]) == {}
