"""What commands print: tables, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from squeezedet.text import align

Rows = Sequence[Sequence[str]]


def print_table(rows: Rows, left: Sequence[int] = (0,)) -> None:
    """A table, its first row the heading: drawn on a terminal, aligned text anywhere else.

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

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, cell in enumerate(rows[0]):
        table.add_column(Text(cell), justify="left" if i in left else "right")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    Console().print(table)


def write_json(target: str | Path | None, values: Any) -> None:
    """Values as JSON into a file, or with ``-`` on standard output; nothing without a target.

    Raises:
        SqueezeDetError: the file cannot be written.
    """
    from squeezedet.files import write_atomic

    if target is None:
        return
    content = json.dumps(values, indent=2)
    if str(target) == "-":
        print(content)
    else:
        write_atomic(Path(target), content + "\n")


def check_target(target: str | Path | None) -> None:
    """Before long work: whether ``write_json`` will be able to write there.

    Raises:
        UsageError: it will not.
    """
    from squeezedet.files import check_file

    if target is not None and str(target) != "-":
        check_file(Path(target))
