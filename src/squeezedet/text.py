"""Text for people: aligned columns, counted things, and sizes such as 1248x384."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from squeezedet.errors import UsageError


def align(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,), indent: str = "") -> str:
    """Rows of cells as columns, two blanks apart.

    Args:
        rows: all of one length.
        left: columns that are aligned to the left; numbers go to the right.
        indent: put before each line.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def cell(text: str, column: int) -> str:
        return text.ljust(widths[column]) if column in left else text.rjust(widths[column])

    lines = ("  ".join(cell(text, i) for i, text in enumerate(row)).rstrip() for row in rows)
    return "\n".join(indent + line for line in lines)


def counted(count: int, thing: str, things: str = "") -> str:
    """``1 image``, ``2 images``; ``things`` where the plural is another."""
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """``; did you mean 'lines'?``, or, when nothing is close, what there is."""
    close = get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(known)}" if known else "; there are none"


def parse_size(text: str, parameter: str = "size", largest: int = 16_384) -> tuple[int, int]:
    """``1248x384`` to (1248, 384).

    Args:
        text: width and height in pixels.
        parameter: what the text was given for, for the error.
        largest: longest side that is allowed.

    Raises:
        UsageError: it is something else.
    """
    found = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", text.strip())
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (1 <= width <= largest and 1 <= height <= largest):
        raise UsageError(
            f"{parameter}: {text!r} is not WIDTHxHEIGHT with sides of 1 to {largest}, for example 1248x384"
        )
    return width, height
