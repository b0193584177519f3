"""``squeezedet models``: what comes with the package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from squeezedet.cli.output import table
from squeezedet.errors import ModelError

if TYPE_CHECKING:
    from squeezedet.runtime.card import Card

EXAMPLES = """\
  squeezedet models
  squeezedet models --networks
  squeezedet detect photo.jpg --model street-ssd
"""


def models(
    networks: Annotated[
        bool, typer.Option("--networks", help="List the networks that can be built and trained.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", hidden=True)] = False,
) -> None:
    """List the models that come with the package: size, accuracy, licence.

    All that is printed stands in the card of each model file. --networks lists instead every
    network of the papers, by the name that `train`, `profile` and `classify` take.
    """
    if networks or everything:
        _networks()
        return
    from squeezedet.runtime.bundle import read_card, shipped

    found = shipped()
    if not found:
        raise ModelError("the package holds no model; install it again")
    print("\n\n".join(_describe(name, path, read_card(path)) for name, path in found.items()))


def _networks() -> None:
    from squeezedet.models.registry import NETWORKS

    rows = [(name, e.task, f"{e.parameters:,}", e.source) for name, e in NETWORKS.items()]
    table([("network", "task", "parameters", "source"), *rows], left=(0, 1, 3))


def _describe(name: str, path: Path, card: Card) -> str:
    width, height = card.input.width, card.input.height
    shape = "always" if card.input.fixed else "the image's own shape, at most as many pixels as"
    try:
        accuracy = _accuracy(card.results)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: the card's results are none of a KITTI evaluation") from error
    facts = [
        ("classes", ", ".join(card.classes)),
        ("size", f"{path.stat().st_size / 1e6:.2f} MB, {card.parameters:,} parameters"),
        ("input", f"{shape} {width}x{height}"),
        ("accuracy", accuracy),
        ("data", card.data),
        ("licence", card.licence),
        ("file", str(path)),
    ]
    lines = [f"  {label:8}  {value}" for label, value in facts]
    if sys.stdout.isatty():
        columns = get_terminal_size().columns
        lines = [fill(line, columns, subsequent_indent=" " * 12, break_long_words=False) for line in lines]
    return "\n".join([name, *lines])


def _accuracy(results: Mapping[str, Any]) -> str:
    """AP40 at level moderate of each class; a class that was never detected has 0."""
    classes = results.get("results")
    if results.get("protocol") != "kitti" or not classes:
        return "not measured"
    ap = ", ".join(
        f"{name} {100 * (levels['moderate']['ap40'] if levels else 0):.1f}" for name, levels in classes.items()
    )
    images = results["counts"]["images"]
    return f"{ap} (AP40 in %, KITTI moderate, rules {results['rules']!r}, {images} images)"
