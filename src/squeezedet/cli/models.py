"""``squeezedet models`` and ``sign``: what comes with the package; who made a model, and that it was not changed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from squeezedet.cli.options import table
from squeezedet.errors import ModelError, UsageError

if TYPE_CHECKING:
    from squeezedet.runtime.card import Card


def models(
    networks: Annotated[bool, Option("--networks", help="List the networks that can be built and trained.")] = False,
) -> None:
    """List the models that come with the package: size, accuracy, licence.

    All that is printed stands in the card of each model file. --networks lists instead every
    network of the papers, by the name that `train`, `profile` and `classify` take.

    Examples:
      squeezedet models
      squeezedet models --networks
      squeezedet detect photo.jpg --model street-ssd
    """
    if networks:
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
    accuracy = f"{ap} (AP40 in %, KITTI moderate, rules {results['rules']!r}, {images} images)"
    if results.get("score") is None:
        return accuracy
    at_score = ", ".join(
        f"{name} {_percent(levels['moderate']['precision'])} / {_percent(levels['moderate']['recall'])}"
        for name, levels in classes.items()
        if levels
    )
    return f"{accuracy}; precision / recall at {results['score']:g}: {at_score}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"


def sign(
    model: Annotated[str | None, Argument(metavar="MODEL", help="A bundle, or a model that comes with us.")] = None,
    *,
    key: Annotated[Path | None, Option(metavar="FILE", help="Private key to sign with (PEM).")] = None,
    out: Annotated[Path | None, Option("--out", "-o", metavar="FILE", help="To write [default: MODEL itself].")] = None,
    check: Annotated[str | None, Option(metavar="KEYS|package", help="Check it against these public keys.")] = None,
    new_key: Annotated[Path | None, Option(metavar="NAME", help="Make a key: NAME.pem and NAME.pub.")] = None,
) -> None:
    """Sign a model with an Ed25519 key, or check a signature.

    A signature covers all parts of a bundle. Whoever has the public key can ask for it with
    --require-signature: a model that is unsigned, signed by another key or changed is refused.

    Examples:
      squeezedet sign --new-key mine                        # mine.pem (keep it) and mine.pub
      squeezedet sign runs/a/a.bundle --key mine.pem -o signed.bundle
      squeezedet sign signed.bundle --check mine.pub
      squeezedet detect street.jpg --model signed.bundle --require-signature mine.pub
    """
    from squeezedet.runtime import bundle, signature

    if sum(value is not None for value in (key, check, new_key)) != 1:
        raise UsageError("give one of `key`, `check` and `new_key`")
    if new_key is not None:
        if model is not None or out is not None:
            raise UsageError("`new_key`: makes a key and signs nothing; leave out the model and `out`")
        private, public = signature.new_key(new_key)
        print(f"wrote {private} (keep it to yourself) and {public}")
        return
    if model is None:
        raise UsageError("say which model")
    path = bundle.find(model)
    if out is not None and check is not None:
        raise UsageError("`check`: writes nothing; leave out `out`")
    if check is not None:
        bundle.read(path, trusted_keys=signature.read_keys(check))
        print(f"{path}: signed by one of the keys, and unchanged")
        return
    assert key is not None  # noqa: S101 - one of the three is given
    if out is None and bundle.is_shipped(model):
        raise UsageError(f"{model}: is a model of the package, which stays as it is; say where to write with `out`")
    target = out or path
    bundle.sign(path, key, target)
    print(f"wrote {target}: {target.stat().st_size:,} bytes, signed")
