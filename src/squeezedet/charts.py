"""Charts as SVG text: lines and labelled points. No script, no font and no network needed.

    line_chart("car", [Series("easy", recall, precision)], x=Axis("recall", 0, 1))
    scatter_chart("Speed", [Point("a", 57.2, 76.7)], x=Axis("frames/s", log=True))
    bar(0.4)  # for the cell of a page's table

Each returns a whole ``<svg>`` that can be written to a file or put into a page (``pages.svg``).
The colors are told apart with every kind of color vision and follow the reader's dark mode. An
empty, constant or all-zero series gives a chart, never an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 320
TOP, RIGHT = 28, 14
MAX_TICKS = 6
LETTER, LINE = 6.2, 14.0
"""Width of a letter and height of a line of text in pixels, about."""
RADIUS = 4.5
MAX_VALUE = 1e100
"""Beyond it (or not a number) a value has no place."""
# Okabe and Ito's colors; yellow is too pale on white, blue too dark on black.
LIGHT = ("#009e73", "#e69f00", "#56b4e9", "#d55e00", "#0072b2", "#cc79a7")
DARK = ("#2cc295", "#e69f00", "#56b4e9", "#f07a2b", "#f0e442", "#e39cc5")
DASHES = ("", "6 3", "2 3")
Box = tuple[float, float, float, float]


def _variables(colors: Sequence[str], ink: str, grid: str) -> str:
    return f"--ink:{ink};--grid:{grid};" + "".join(f"--c{i}:{c};" for i, c in enumerate(colors))


STYLE = (
    f"<style>svg.chart{{{_variables(LIGHT, '#333', '#ddd')}font:11px system-ui,sans-serif}}"
    f"@media(prefers-color-scheme:dark){{svg.chart{{{_variables(DARK, '#ddd', '#444')}}}}}"
    "svg.chart text{fill:var(--ink)}svg.chart .title{font-size:13px;font-weight:600}"
    "svg.chart .grid{stroke:var(--grid);fill:none}</style>"
)


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: its label, its ends (None: as the data need them), and whether it is logarithmic.

    With ``log`` only positive values have a place.
    """

    label: str = ""
    low: float | None = None
    high: float | None = None
    log: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name and the coordinates of its points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Point:
    """A labelled point. ``group`` 0 is a disc, 1 a ring."""

    name: str
    x: float
    y: float
    group: int = 0


def line_chart(title: str, series: Sequence[Series], *, x: Axis | None = None, y: Axis | None = None) -> str:
    """Lines with their names below the plot. A series of one point is a dot."""
    x, y = x or Axis(), y or Axis()
    lines = [[p for p in zip(s.x, s.y, strict=True) if _fits(p, x, y)] for s in series]
    every = [p for line in lines for p in line]
    legend, rows = _legend([s.name for s in series])
    plot = _Plot(title, x, y, [p[0] for p in every], [p[1] for p in every], 50 + LINE * rows)
    parts = plot.frame()
    for k, line in enumerate(lines):
        stroke = _stroke(k)
        places = [(plot.across(px), plot.up(py)) for px, py in line]
        if len(places) == 1:
            parts.append(f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" {stroke}/>')
        elif places:
            points = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
            parts.append(f'<polyline points="{points}" fill="none" stroke-width="2" {stroke}/>')
    for k, (left, row, name) in enumerate(legend):
        base = plot.height - LINE * (rows - row) + 6
        mark = f'<path d="M{left:.1f} {base - 4:.1f}h18" stroke-width="2" {_stroke(k)}/>'
        parts.append(mark + _text(left + 22, base, name, "start"))
    return plot.svg(parts)


def scatter_chart(
    title: str, points: Sequence[Point], *, x: Axis | None = None, y: Axis | None = None, groups: Sequence[str] = ()
) -> str:
    """Points with their names beside them, clear of each other.

    Args:
        title: above the plot.
        points: what to draw; one without a place (not finite, or not positive on a logarithmic
            axis) is left out.
        x: its axis.
        y: its axis.
        groups: what a disc and a ring mean.
    """
    x, y = x or Axis(), y or Axis()
    placed = [p for p in points if _fits((p.x, p.y), x, y)]
    plot = _Plot(title, x, y, [p.x for p in placed], [p.y for p in placed], 56, width=560, height=400, right=150)
    parts = plot.frame()
    for k, name in enumerate(groups):
        left, top = plot.width - 136, 12 + 16 * k
        parts.append(_disc(left, top, k, "") + _text(left + 8, top + 4, name, "start"))
    places = [(plot.across(p.x), plot.up(p.y)) for p in placed]
    taken = [(px - RADIUS, py - RADIUS, px + RADIUS, py + RADIUS) for px, py in places]
    for point, (px, py) in zip(placed, places, strict=True):
        group = f", {groups[point.group]}" if point.group < len(groups) else ""
        said = f"{point.name}: {point.x:.3g}, {point.y:.3g}{group}"
        parts.append(_disc(px, py, point.group, said) + _name_beside(point.name, px, py, taken))
    return plot.svg(parts)


def bar(part: float) -> str:
    """A bar for a cell of a page's table, ``part`` (0 to 1) of its full length."""
    length = 100 * min(max(part, 0.0), 1.0) if math.isfinite(part) else 0.0
    return (
        f'<svg class="chart" viewBox="0 0 100 8" width="140" height="10" aria-hidden="true">'
        f'<rect width="{length:.1f}" height="8" fill="{_color(0)}"/></svg>'
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, evenly spaced, from at most ``low`` to at least ``high``; two at least."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / MAX_TICKS))
    step = next(power * k for k in (1, 2, 5, 10, 20) if span / (power * k) <= MAX_TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten (only powers where these are many) around a positive range."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    marks = [float(f"{k}e{power}") for power in powers for k in (1, 2, 5)]
    first = max(i for i, m in enumerate(marks) if m <= low)
    last = min(i for i, m in enumerate(marks) if m >= high)
    inside = marks[first : max(last, first + 1) + 1]
    if len(inside) <= 2 * MAX_TICKS:
        return inside
    return [m for m in inside if f"{m:e}"[0] == "1" or m in (inside[0], inside[-1])]


class _Plot:
    """The frame of a chart: where a value lies, the grid, the labels."""

    def __init__(
        self,
        title: str,
        x: Axis,
        y: Axis,
        xs: Sequence[float],
        ys: Sequence[float],
        below: float,
        *,
        width: float = WIDTH,
        height: float = HEIGHT,
        right: float = RIGHT,
    ) -> None:
        self.title, self.x, self.y, self.empty = title, x, y, not ys
        self.x_ticks, self.y_ticks = _axis_ticks(x, xs), _axis_ticks(y, ys)
        self.left = 26 + LETTER * max(len(_number(tick)) for tick in self.y_ticks)
        self.width, self.height, self.right, self.bottom = width, height, right, height - below
        self.across = _scale(x, self.x_ticks, self.left, width - right)
        self.up = _scale(y, self.y_ticks, self.bottom, TOP)

    def frame(self) -> list[str]:
        middle, end = (self.left + self.width - self.right) / 2, self.width - self.right
        parts = [_text(self.left, 16, self.title, "start", "title")]
        for tick in self.y_ticks:
            at = self.up(tick)
            parts.append(f'<path class="grid" d="M{self.left:.1f} {at:.1f}H{end:.1f}"/>')
            parts.append(_text(self.left - 6, at + 4, _number(tick), "end"))
        for tick in self.x_ticks:
            at = self.across(tick)
            parts.append(f'<path class="grid" d="M{at:.1f} {self.bottom:.1f}V{TOP}"/>')
            parts.append(_text(at, self.bottom + 15, _number(tick)))
        parts.append(_text(middle, self.bottom + 32, self.x.label))
        turn = f'transform="translate(13 {(TOP + self.bottom) / 2:.1f}) rotate(-90)"'
        parts.append(f'<text {turn} text-anchor="middle">{escape(self.y.label)}</text>')
        if self.empty:
            parts.append(_text(middle, (TOP + self.bottom) / 2, "no data"))
        return parts

    def svg(self, parts: Sequence[str]) -> str:
        return _svg(self.width, self.height, self.title, [STYLE, *parts])


def _axis_ticks(axis: Axis, values: Sequence[float]) -> list[float]:
    """Marks on an axis, its ends among them."""
    low = min(values, default=1.0 if axis.log else 0.0) if axis.low is None else axis.low
    high = max(values, default=max(1.0, low)) if axis.high is None else axis.high
    if axis.log:
        return log_ticks(low, max(high, low))
    if axis.low is None and low > 0 and low < 0.7 * high:
        low = 0.0  # an axis that starts near 0 starts at 0
    return ticks(min(low, high), high)


def _scale(axis: Axis, marks: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    change = math.log10 if axis.log else float
    low, high = change(marks[0]), change(marks[-1])
    return lambda value: start + (change(value) - low) / (high - low) * (end - start)


def _fits(point: tuple[float, float], x: Axis, y: Axis) -> bool:
    return all(abs(v) <= MAX_VALUE and (v > 0 or not a.log) for v, a in zip(point, (x, y), strict=True))


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.3g}"


def _legend(names: Sequence[str]) -> tuple[list[tuple[float, int, str]], int]:
    """Left end, row and name of each entry, and how many rows there are."""
    placed: list[tuple[float, int, str]] = []
    left, row = 50.0, 0
    for name in names:
        length = 40 + LETTER * len(name)
        if placed and left + length > WIDTH:
            left, row = 50.0, row + 1
        placed.append((left, row, name))
        left += length
    return placed, row + 1 if names else 0


def _name_beside(name: str, x: float, y: float, taken: list[Box]) -> str:
    """The name right or left of its point, higher or lower, where nothing stands yet."""
    width, places = LETTER * len(name), []
    for shift in (0.0, -12, 12, -24, 24, 36, -36):
        for left, anchor in ((x + 8, "start"), (x - 8 - width, "end")):
            places.append(((left, y + shift - 6, left + width, y + shift + 6), anchor))
    free = (p for p in places if p[0][0] > 50 and not any(_overlap(p[0], t) for t in taken))
    box, anchor = next(free, places[0])
    taken.append(box)
    return _text(box[0] if anchor == "start" else box[2], box[3] - 2, name, anchor)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _disc(x: float, y: float, group: int, said: str) -> str:
    color = _color(group)
    title = f"<title>{escape(said)}</title>" if said else ""
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" fill="{"none" if group else color}"'
        f' stroke="{color}" stroke-width="2">{title}</circle>'
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _color(k: int) -> str:
    return f"var(--c{k % len(LIGHT)})"


def _stroke(k: int) -> str:
    return f'stroke="{_color(k)}" stroke-dasharray="{DASHES[k % len(DASHES)]}"'


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" role="img" aria-label="{escape(title, quote=True)}"'
        ' xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(parts) + "\n</svg>\n"
    )
