"""Histograms of box sizes as one SVG text: a row per class, sizes by factors of the root of 2."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from squeezedet.data.doctor.sizes import SMALL_PX
from squeezedet.drawing import COLOURS

WIDTH, ROW, PLOT = 640, 120, 70
LEFT, RIGHT, TOP = 60, 20, 40
EXPONENTS = (1, 11)  # 2 to 2048 px
BINS = 2 * (EXPONENTS[1] - EXPONENTS[0])


def histogram(sizes: Mapping[str, Any], title: str) -> str:
    """An SVG of the geometric mean of width and height, on a logarithmic axis.

    Args:
        sizes: for each class (N, 2) widths and heights in pixels; classes without any are
            left out.
        title: written above.
    """
    rows = {name: np.sqrt(size.prod(axis=1)) for name, size in sizes.items() if len(size)}
    height = TOP + ROW * len(rows) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="20" text-anchor="middle" font-size="14">{escape(title)}</text>',
    ]
    for k, (name, size) in enumerate(rows.items()):
        parts += _row(name, size, TOP + ROW * k, f"rgb{COLOURS[k % len(COLOURS)]}")
    return "\n".join([*parts, "</svg>\n"])


def _row(name: str, size: Any, top: float, colour: str) -> list[str]:
    edges = 2.0 ** np.linspace(*EXPONENTS, BINS + 1)
    count, _ = np.histogram(np.clip(size, edges[0], edges[-1]), edges)
    base = top + 16 + PLOT
    step = (WIDTH - LEFT - RIGHT) / BINS
    parts = [
        f'<text x="{LEFT}" y="{top + 8}">{escape(name)}: {len(size):,} objects, '
        f"median {np.median(size):.0f} px</text>",
        f'<text x="{LEFT - 6}" y="{base - PLOT + 10}" text-anchor="end">{count.max():,}</text>',
        f'<path d="M{LEFT} {base}H{WIDTH - RIGHT}" stroke="black"/>',
    ]
    for i in np.flatnonzero(count).tolist():
        tall = PLOT * count[i] / count.max()
        parts.append(
            f'<rect x="{LEFT + i * step + 1:.1f}" y="{base - tall:.1f}" width="{step - 2:.1f}"'
            f' height="{tall:.1f}" fill="{colour}"/>'
        )
    for exponent in range(EXPONENTS[0], EXPONENTS[1] + 1):
        x = LEFT + 2 * (exponent - EXPONENTS[0]) * step
        parts.append(f'<text x="{x:.1f}" y="{base + 14}" text-anchor="middle">{2**exponent}</text>')
    limit = LEFT + 2 * (np.log2(SMALL_PX) - EXPONENTS[0]) * step
    parts.append(f'<path d="M{limit:.1f} {base}v-{PLOT}" stroke="red" stroke-dasharray="4 3"/>')
    return parts
