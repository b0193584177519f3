"""``squeezedet papers``: what reproduces the papers' tables and figures."""

from __future__ import annotations

import typer

from squeezedet.cli import compare as comparison
from squeezedet.cli import energy as power
from squeezedet.cli.compare import compare
from squeezedet.cli.energy import energy
from squeezedet.cli.profile import GeometryName

TABLES_EXAMPLES = """\
  squeezedet papers tables
"""
EXAMPLES = f"{comparison.EXAMPLES}{power.EXAMPLES}{TABLES_EXAMPLES}"


def tables() -> None:
    """Print the tables that need no model.

    Table 1 of the paper (RPN, ConvDet and FcDet) and Table 1 of its supplement (SqueezeDet layer
    by layer) are computed from the networks; Tables 2 and 3 are quoted: for rows of models
    of ours beside them see `squeezedet papers compare`.
    """
    from squeezedet.cli.profile import profile
    from squeezedet.papers.tables import ROWS, as_text

    profile("squeezedet", geometry=GeometryName.paper, table1=True)
    print(f"\n{as_text(ROWS)}")


papers = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="The papers' tables and figures, with any models of ours beside.",
    epilog=f"\b\nExamples:\n{EXAMPLES}",
)
papers.command("compare", epilog=f"\b\nExamples:\n{comparison.EXAMPLES}")(compare)
papers.command("energy", epilog=f"\b\nExamples:\n{power.EXAMPLES}")(energy)
papers.command("tables", epilog=f"\b\nExamples:\n{TABLES_EXAMPLES}")(tables)
