"""Charts: where things lie, and that odd data never stop them."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.charts import Axis, Point, Series, bar, line_chart, log_ticks, scatter_chart, ticks

NUMBERS = st.lists(st.floats(), max_size=6)
ODD = [[], [0.0], [0.0, 0.0], [5.0, 5.0, 5.0], [math.nan], [math.inf, 1.0], [-1.0, 1e30], [1e-300]]


def parse(svg: str) -> ET.Element:
    root = ET.fromstring(svg)
    for name in ("cx", "cy", "x", "y", "width", "height", "points"):
        for element in root.iter():
            assert "nan" not in element.get(name, "") and "inf" not in element.get(name, "")
    return root


@pytest.mark.parametrize("values", ODD, ids=str)
@pytest.mark.parametrize("log", [False, True])
def test_no_data_stop_a_chart(values: list[float], log: bool) -> None:
    axis = Axis("v", log=log)
    line = Series("a", range(len(values)), values)
    parse(line_chart("t", [line], y=axis))
    parse(line_chart("t", [line, line], x=axis, y=axis))
    parse(scatter_chart("t", [Point("p", v, v) for v in values], x=axis, y=axis))
    parse(bar(values[0] if values else 0.0))


@given(NUMBERS)
def test_any_numbers_make_a_chart(values: list[float]) -> None:
    parse(line_chart("t", [Series("a", values, values)], y=Axis(log=True)))
    parse(line_chart("t", [Series("a", values, values)]))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_ticks_enclose_the_range(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    marks = ticks(low, high)
    step = marks[1] - marks[0]
    assert 2 <= len(marks) <= 9
    assert marks[0] <= low + 1e-6 * step and marks[-1] >= high - 1e-6 * step


@given(st.floats(1e-6, 1e9), st.floats(1, 1e6))
def test_logarithmic_ticks_enclose_the_range(low: float, ratio: float) -> None:
    marks = log_ticks(low, low * ratio)
    assert marks[0] <= low and marks[-1] >= low * ratio and len(marks) >= 2
    assert marks == sorted(marks) and len(marks) < 20


def test_a_line_goes_through_its_points() -> None:
    svg = line_chart("t", [Series("a", [0, 1, 2], [0, 1, 0])], x=Axis(low=0, high=2))
    (points,) = re.findall(r'points="([^"]*)"', svg)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in points.split())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 == y2 and y1 == 28  # the top of the plot


def test_a_logarithmic_axis_has_equal_steps_for_equal_ratios() -> None:
    points = [Point(n, x, 50.0) for n, x in (("a", 1.5), ("b", 15), ("c", 150))]
    svg = scatter_chart("t", points, x=Axis(log=True))
    a, b, c = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg))
    assert b - a == pytest.approx(c - b, abs=0.2) and b - a > 50


def test_names_of_lines_stand_below_the_plot_and_inside_the_picture() -> None:
    names = ["easy", "moderate", "hard", *(f"a longer name {i}" for i in range(9))]
    svg = line_chart("t", [Series(name, [0, 1], [0, 0]) for name in names])
    root = parse(svg)
    _, _, width, height = map(float, root.get("viewBox", "").split())
    lowest = max(float(y) for y in re.findall(r'points="[^"]*,([\d.]+)"', svg))
    for name in names:
        ((x, y),) = re.findall(rf'x="([\d.]+)" y="([\d.]+)" text-anchor="start">{name}<', svg)
        assert lowest + 20 < float(y) < height and float(x) + 5 * len(name) < width


def test_names_of_points_do_not_lie_on_each_other() -> None:
    points = [Point(f"name {i}", 10 + i / 10, 50 + i / 10) for i in range(6)]
    found = re.findall(r'x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">name', scatter_chart("t", points))
    assert len(found) == 6
    boxes = [(float(x) - (36 if anchor == "end" else 0), float(y)) for x, y, anchor in found]
    for i, (left, y) in enumerate(boxes):
        for other_left, other_y in boxes[:i]:
            assert abs(y - other_y) >= 11 or abs(left - other_left) >= 30


def test_texts_are_escaped() -> None:
    for svg in (
        line_chart("<t&\"'>", [Series("<n>", [1], [1])], x=Axis("<x>"), y=Axis("<y>")),
        scatter_chart("<t>", [Point("<p>", 1, 1)], groups=["<g>"]),
    ):
        parse(svg)
