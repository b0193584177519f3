"""What commands print: tables, JSON, sentences."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from squeezedet.files import check_file, write_atomic
from squeezedet.text import align

STDOUT = "-"


def say(sentence: object) -> None:
    """A note, a warning or an error: a line on standard error."""
    print(f"squeezedet: {sentence}", file=sys.stderr)


def table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> None:
    """Print a table, its first row the heading: drawn on a terminal, aligned text anywhere else.

    Args:
        rows: all of one length.
        left: columns that are aligned to the left; numbers go to the right.
    """
    if not sys.stdout.isatty():
        print(align(rows, left=left, indent="  "))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, cell in enumerate(rows[0]):
        drawn.add_column(Text(cell), justify="left" if i in left else "right")
    for row in rows[1:]:
        drawn.add_row(*map(Text, row))
    Console().print(drawn)


def check_target(target: str | Path | None) -> None:
    """Before long work: whether ``write_json`` will be able to write there.

    Raises:
        UsageError: it will not.
    """
    if target is not None and str(target) != STDOUT:
        check_file(Path(target))


def write_json(target: str | Path | None, values: Any) -> None:
    """Values as JSON into a file, or with ``-`` on standard output; nothing without a target.

    Raises:
        SqueezeDetError: the file cannot be written.
    """
    if target is None:
        return
    content = json.dumps(values, indent=2)
    if str(target) == STDOUT:
        print(content)
    else:
        write_atomic(Path(target), content + "\n")
