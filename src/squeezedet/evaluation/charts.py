"""Line and bar charts as SVG text, readable on any background and without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from squeezedet.drawing import COLORS

WIDTH, HEIGHT = 420, 320
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 26, 64
# Yellow is too pale for a line on white.
INKS = [f"rgb{colour}" for colour in COLORS if colour != (240, 228, 66)]
DASHES = ("", "6 3", "2 3")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: its name, and the points it goes through; y is 0 to 1."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], *, log_x: bool = False
) -> str:
    """A chart with y from 0 to 1, and x from 0 to 1 or, with ``log_x``, as the lines need it."""
    low = min((min(line.x) for line in lines if len(line.x)), default=1) if log_x else 0
    high = max((max(line.x) for line in lines if len(line.x)), default=1) if log_x else 1
    span = math.log(high / low) if log_x and high > low else 1.0

    def across(x: float) -> float:
        part = math.log(max(x, low) / low) / span if log_x else x
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)

    ticks = _powers(low, high) if log_x else [0, 0.2, 0.4, 0.6, 0.8, 1]
    parts = [_frame(title, x_label, y_label)]
    for y in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(f'<path class="grid" d="M{LEFT} {up(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in ticks:
        at = f"{across(x):.1f}"
        parts.append(f'<path class="grid" d="M{at} {up(0):.1f}V{up(1):.1f}"/>')
        parts.append(f'<text x="{at}" y="{up(0) + 15:.1f}" text-anchor="middle">{x:g}</text>')
    for k, line in enumerate(lines):
        points = " ".join(
            f"{across(x):.1f},{up(y):.1f}" for x, y in zip(line.x, line.y, strict=True)
        )
        stroke = f'stroke="{INKS[k % len(INKS)]}" stroke-dasharray="{DASHES[k % len(DASHES)]}"'
        parts.append(f'<polyline points="{points}" fill="none" stroke-width="2" {stroke}/>')
        # The names stand side by side below the plot, where no line passes.
        x_name = LEFT + k * (WIDTH - LEFT - RIGHT) / len(lines)
        parts.append(
            f'<path d="M{x_name:.1f} {HEIGHT - 10}h24" stroke-width="2" {stroke}/>'
            f'<text x="{x_name + 30:.1f}" y="{HEIGHT - 6}">{escape(line.name)}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _frame(title: str, x_label: str, y_label: str) -> str:
    middle, below = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 36
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"'
        f' aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">\n'
        f'<text class="title" x="{middle}" y="16" text-anchor="middle">{escape(title)}</text>\n'
        f'<text x="{middle}" y="{below}" text-anchor="middle">{escape(x_label)}</text>\n'
        f'<text transform="translate(13 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"'
        f' text-anchor="middle">{escape(y_label)}</text>'
    )


def _powers(low: float, high: float) -> list[float]:
    """Powers of two from ``low`` on, every second one, and the end if there is room."""
    ticks = [low * 4**k for k in range(16) if low * 4**k <= high]
    return [*ticks, high] if high > 2.5 * ticks[-1] else ticks


def bar(part: float) -> str:
    """A bar for a table cell, ``part`` (0 to 1) of its full length."""
    return (
        '<svg viewBox="0 0 100 8" width="140" height="10" aria-hidden="true">'
        f'<rect width="{100 * min(max(part, 0), 1):.1f}" height="8" fill="{INKS[0]}"/></svg>'
    )
