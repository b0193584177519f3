"""The scatter plots of the paper's Fig. 6 as SVG text without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from squeezedet.drawing import COLORS
from squeezedet.papers.tables import ComparisonRow

WIDTH, HEIGHT = 560, 400
LEFT, RIGHT, TOP, BOTTOM = 52, 150, 44, 48
OURS, QUOTED = (f"rgb{colour}" for colour in COLORS[:2])
LINE = 12.0
"""Height of a name, pixels."""
LETTER = 6.2
"""Width of a letter, about."""
RADIUS = 4.5
Box = tuple[float, float, float, float]
"""x and y of the upper left and the lower right corner."""


@dataclass(frozen=True, slots=True)
class Point:
    """One detector in a plot: where it lies, and whether its figures are quoted."""

    name: str
    x: float
    y: float
    quoted: bool


def speed_plot(rows: Sequence[ComparisonRow]) -> str | None:
    """Fig. 6a: frames per second against AP of cyclists, mean of the levels; None without any."""
    points = _points(rows, "frames_per_s", "cyclist")
    title = "Speed and AP of cyclists"
    return scatter(title, "frames per second", "AP, cyclist, %", points) if points else None


def size_plot(rows: Sequence[ComparisonRow]) -> str | None:
    """Fig. 6b: model size against AP of cars, mean of the levels; None without any."""
    points = _points(rows, "size_mib", "car")
    title = "Size and AP of cars"
    return scatter(title, "model size, MiB", "AP, car, %", points) if points else None


def _points(rows: Sequence[ComparisonRow], figure: str, name: str) -> list[Point]:
    found = []
    for row in rows:
        x, y = getattr(row, figure), row.class_ap(name)
        if x and y is not None:
            found.append(Point(row.name, x, y, bool(row.quoted)))
    return found


def scatter(title: str, x_label: str, y_label: str, points: Sequence[Point]) -> str:
    """Points with their names; x is logarithmic, y is % from a multiple of 10 on.

    Discs are measured, rings are quoted; both say their figures when pointed at.

    Args:
        title: of the plot.
        x_label: of its axis.
        y_label: of its axis.
        points: one at least, x above 0.
    """
    low, high = _decades([point.x for point in points])
    floor = 10 * math.floor(max(min(point.y for point in points) - 5, 0) / 10)

    def across(x: float) -> float:
        return LEFT + math.log(x / low) / math.log(high / low) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - floor) / (100 - floor) * (HEIGHT - TOP - BOTTOM)

    parts = [_frame(title, x_label, y_label)]
    for ap in range(floor, 101, 10):
        parts.append(_grid(f"M{LEFT} {up(ap):.1f}H{WIDTH - RIGHT}"))
        parts.append(f'<text x="{LEFT - 6}" y="{up(ap) + 4:.1f}" text-anchor="end">{ap}</text>')
    for x in _ticks(low, high):
        at = f"{across(x):.1f}"
        parts.append(_grid(f"M{at} {up(floor):.1f}V{up(100):.1f}"))
        parts.append(f'<text x="{at}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{x:g}</text>')
    places = [(across(point.x), up(point.y)) for point in points]
    taken = [_around(x, y) for x, y in places]
    for point, (x, y) in zip(points, places, strict=True):
        parts.append(_disc(point, x, y))
        parts.append(_label(point.name, x, y, taken))
    return "\n".join([*parts, "</svg>\n"])


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Ends of the axis: 1, 2 or 5 times a power of ten, clear of every value."""
    steps = [k * 10.0**power for power in range(-6, 9) for k in (1, 2, 5)]
    low = max((s for s in steps if s < min(values)), default=steps[0])
    return low, min((s for s in steps if s > max(values)), default=steps[-1])


def _ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{k}e{power}") for power in powers for k in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick * 1.000001 and tick <= high * 1.000001]


def _around(x: float, y: float) -> Box:
    return x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS


def _disc(point: Point, x: float, y: float) -> str:
    ink = QUOTED if point.quoted else OURS
    fill = "none" if point.quoted else ink
    said = f"{point.name}: {point.x:.3g}, {point.y:.1f} %" + (", quoted" if point.quoted else "")
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" fill="{fill}" stroke="{ink}"'
        f' stroke-width="2"><title>{escape(said)}</title></circle>'
    )


def _label(name: str, x: float, y: float, taken: list[Box]) -> str:
    """The name beside its point, right or left, higher or lower, where nothing stands yet."""
    width = LETTER * len(name)
    for shift in (0.0, -LINE, LINE, -2 * LINE, 2 * LINE, 3 * LINE):
        for left, anchor in ((x + 8, "start"), (x - 8 - width, "end")):
            box = (left, y + shift - LINE / 2, left + width, y + shift + LINE / 2)
            if left > LEFT and not any(_overlap(box, other) for other in taken):
                return _text(name, box, anchor, taken)
    return _text(name, (x + 8, y - LINE / 2, x + 8 + width, y + LINE / 2), "start", taken)


def _text(name: str, box: Box, anchor: str, taken: list[Box]) -> str:
    taken.append(box)
    x = box[0] if anchor == "start" else box[2]
    return f'<text x="{x:.1f}" y="{box[3] - 2:.1f}" text-anchor="{anchor}">{escape(name)}</text>'


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _grid(path: str) -> str:
    return f'<path d="{path}" stroke="currentColor" stroke-opacity="0.2"/>'


def _frame(title: str, x_label: str, y_label: str) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    legend = (
        f'<circle cx="{WIDTH - RIGHT + 14}" cy="12" r="{RADIUS}" fill="{OURS}" stroke="{OURS}"'
        f' stroke-width="2"/><text x="{WIDTH - RIGHT + 22}" y="16">measured</text>'
        f'<circle cx="{WIDTH - RIGHT + 14}" cy="28" r="{RADIUS}" fill="none" stroke="{QUOTED}"'
        f' stroke-width="2"/><text x="{WIDTH - RIGHT + 22}" y="32">quoted</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"'
        f' aria-label="{escape(title, quote=True)}" xmlns="http://www.w3.org/2000/svg"'
        ' font-family="sans-serif" font-size="11" fill="currentColor">\n'
        f'<text x="{LEFT}" y="16" font-size="13">{escape(title)}</text>{legend}\n'
        f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>\n'
        f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"'
        f' text-anchor="middle">{escape(y_label)}</text>'
    )
