"""A picture of the memory along the layers, as SVG text without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from squeezedet.cost.layers import MIB
from squeezedet.cost.memory import Memory, Moment
from squeezedet.drawing import COLOURS

BOTTOM, LEFT, RIGHT, TOP = 270, 64, 16, 52  # the bars stand on BOTTOM
BAR, NARROWEST, NARROW_FROM = 14.0, 0.5, 120
LETTER = 6.5  # pixels, about
PARTS = ("read", "written", "kept for later")
INKS = [f"rgb{colour}" for colour in COLOURS[:3]]
SRAM_BYTES = 16 * MIB
"""The chip of section 3.4."""


def memory_chart(title: str, memory: Memory) -> str:
    """Bars of what is live while each layer runs, in the order of the schedule.

    A dashed line marks the 16 MiB of section 3.4.
    """
    moments = memory.moments
    step = max(NARROWEST, BAR * min(1.0, NARROW_FROM / len(moments)))
    width = LEFT + RIGHT + max(step * len(moments), 360.0)
    top = max(memory.peak.live, SRAM_BYTES) / MIB
    scale = (BOTTOM - TOP) / top
    height = BOTTOM + 16 + LETTER * max(len(moment.name) for moment in moments)
    parts = [_frame(title, width, height), *_grid(top, scale, width)]
    for index, moment in enumerate(moments):
        parts += _bar(LEFT + index * step, 0.8 * step, moment, scale)
    parts += _names(moments, step)
    line = BOTTOM - SRAM_BYTES / MIB * scale
    parts.append(
        f'<path d="M{LEFT} {line:.1f}H{width - RIGHT:.1f}" stroke="currentColor" '
        f'stroke-dasharray="6 3"/>'
        f'<text x="{width - RIGHT:.1f}" y="{line - 4:.1f}" text-anchor="end">16 MiB</text>'
    )
    return "\n".join([*parts, "</svg>\n"])


def _frame(title: str, width: float, height: float) -> str:
    head = (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" role="img"'
        f' aria-label="{escape(title, quote=True)}" xmlns="http://www.w3.org/2000/svg"'
        ' font-family="sans-serif" font-size="11" fill="currentColor">\n'
        f'<text x="{LEFT}" y="16" font-size="13">{escape(title)}</text>'
    )
    for index, (ink, part) in enumerate(zip(INKS, PARTS, strict=True)):
        x = LEFT + 90 * index
        head += (
            f'\n<rect x="{x}" y="26" width="10" height="10" fill="{ink}"/>'
            f'<text x="{x + 14}" y="35">{part}</text>'
        )
    middle = (TOP + BOTTOM) / 2
    return (
        f'{head}\n<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
        "live memory, MiB</text>"
    )


def _grid(top: float, scale: float, width: float) -> list[str]:
    power = 10.0 ** math.floor(math.log10(top / 4))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= top / 6)
    lines = []
    for k in range(int(top / step) + 1):
        y = BOTTOM - k * step * scale
        lines.append(
            f'<path d="M{LEFT} {y:.1f}H{width - RIGHT:.1f}" stroke="currentColor"'
            f' stroke-opacity="0.2"/><text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{k * step:g}</text>"
        )
    return lines


def _bar(x: float, width: float, moment: Moment, scale: float) -> list[str]:
    rects, y = [], float(BOTTOM)
    title = f"{escape(moment.name)}: {moment.live / MIB:.2f} MiB"
    for ink, size in zip(INKS, (moment.reads, moment.writes, moment.kept), strict=True):
        height = size / MIB * scale
        y -= height
        rects.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
            f' fill="{ink}"><title>{title}</title></rect>'
        )
    return rects


def _names(moments: Sequence[Moment], step: float) -> list[str]:
    every = max(1, math.ceil(11 / step))  # a name needs eleven pixels
    y = BOTTOM + 10
    return [
        f'<text transform="translate({LEFT + (k + 0.7) * step:.1f} {y}) rotate(-90)" '
        f'text-anchor="end">{escape(moments[k].name)}</text>'
        for k in range(0, len(moments), every)
    ]
