"""Curves of a run as pictures, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from squeezedet.drawing import COLOURS

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Curve = tuple[Sequence[float], Sequence[float]]
"""x and y of the points."""

WIDTH, HEIGHT, FINER = 840, 520, 2  # drawn finer, then reduced: Pillow's lines are not smooth
LEFT, RIGHT, TOP, BOTTOM = 90, 20, 50, 100
GRID, INK = (222, 222, 222), (50, 50, 50)
INKS = [colour for colour in COLOURS if colour != (240, 228, 66)]  # yellow is too pale on white
MOST_TICKS = 6


def chart(title: str, curves: Mapping[str, Curve], *, log: bool = False) -> Image:
    """A chart of y against the step.

    Args:
        title: above it.
        curves: by name; a point that is not finite, or with ``log`` not positive, is left out.
        log: with a logarithmic axis.
    """
    from PIL import Image, ImageDraw

    points = {name: _points(curve, log) for name, curve in curves.items()}
    everything = [point for some in points.values() for point in some]
    picture = Image.new("RGB", (WIDTH * FINER, HEIGHT * FINER), "white")
    pen = ImageDraw.Draw(picture)
    _text(pen, (WIDTH / 2, 24), title, "mm", size=24)
    if everything:
        x_ticks = ticks(0, max(x for x, _ in everything))
        lowest, highest = (f(y for _, y in everything) for f in (min, max))
        y_ticks = _decades(10**lowest, 10**highest) if log else ticks(min(0.0, lowest), highest)
        axes = _Axes((x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
        _grid(pen, axes, x_ticks, y_ticks, log)
        for k, (name, some) in enumerate(points.items()):
            ink = INKS[k % len(INKS)]
            if len(some) == 1:
                x, y = axes.place(*some[0])
                pen.ellipse((x - 8, y - 8, x + 8, y + 8), fill=ink)
            pen.line([axes.place(*p) for p in some], fill=ink, width=3 * FINER, joint="curve")
            _name(pen, k, len(points), name, ink)
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, evenly spaced, from at most ``low`` to at least ``high``."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / MOST_TICKS))
    step = next(power * k for k in (1, 2, 5, 10, 20) if span / (power * k) <= MOST_TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2, 5, 10 ... around the range."""
    marks = [10.0**k * m for k in range(-12, 13) for m in (1, 2, 5)]
    below = max((m for m in marks if m <= low), default=marks[0])
    above = min((m for m in marks if m > high), default=marks[-1])
    inside = [m for m in marks if below <= m <= above]
    if len(inside) > 2 * MOST_TICKS:
        inside = [m for m in inside if f"{m:e}"[0] == "1" or m in (below, above)]
    return [math.log10(m) for m in inside]


def _points(curve: Curve, log: bool) -> list[tuple[float, float]]:
    good = [(x, y) for x, y in zip(*curve, strict=True) if math.isfinite(y)]
    return [(x, math.log10(y)) for x, y in good if y > 0] if log else good


class _Axes:
    """Where a point lies on the picture; y may be logarithmic, then its range is in powers."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = x, y

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        left = LEFT + across * (WIDTH - LEFT - RIGHT)
        top = HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)
        return FINER * left, FINER * top


def _grid(
    pen: ImageDraw, axes: _Axes, x_ticks: list[float], y_ticks: list[float], log: bool
) -> None:
    for x in x_ticks:
        foot, head = axes.place(x, axes.y[0]), axes.place(x, axes.y[1])
        pen.line([foot, head], fill=GRID, width=FINER)
        _text(pen, (foot[0] / FINER, foot[1] / FINER + 18), f"{x:g}", "mm")
    for y in y_ticks:
        left, right = axes.place(axes.x[0], y), axes.place(axes.x[1], y)
        pen.line([left, right], fill=GRID, width=FINER)
        value = 10**y if log else y
        _text(pen, (left[0] / FINER - 10, left[1] / FINER), f"{value:.3g}", "rm")
    _text(pen, (WIDTH / 2, HEIGHT - BOTTOM + 42), "step", "mm")


def _name(pen: ImageDraw, k: int, count: int, name: str, ink: tuple[int, int, int]) -> None:
    """The names stand side by side below the plot, where no line passes."""
    x = LEFT + k * (WIDTH - LEFT - RIGHT) / count
    y = HEIGHT - 22
    pen.line([(FINER * x, FINER * y), (FINER * (x + 24), FINER * y)], fill=ink, width=4 * FINER)
    _text(pen, (x + 32, y), name, "lm")


def _text(pen: ImageDraw, at: tuple[float, float], text: str, anchor: str, size: int = 18) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(size=size * FINER)
    pen.text((FINER * at[0], FINER * at[1]), text, fill=INK, font=font, anchor=anchor)
