"""``squeezedet sign``: say who made a model, and find out whether it was changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezedet.errors import UsageError

EXAMPLES = """\
  squeezedet sign --new-key mine                        # mine.pem (keep it) and mine.pub
  squeezedet sign runs/a/a.bundle --key mine.pem -o signed.bundle
  squeezedet sign signed.bundle --check mine.pub
  squeezedet detect street.jpg --model signed.bundle --require-signature mine.pub
"""


def sign(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A bundle, or a model that comes with us.")
    ] = None,
    *,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Private key to sign with (PEM).")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Signed model [default: MODEL itself].")
    ] = None,
    check: Annotated[
        str | None, typer.Option(metavar="KEYS|package", help="Only check it, against these public keys.")
    ] = None,
    new_key: Annotated[Path | None, typer.Option(metavar="NAME", help="Make a key: NAME.pem and NAME.pub.")] = None,
) -> None:
    """Sign a model with an Ed25519 key, or check a signature.

    A signature covers all parts of a bundle. Whoever has the public key can ask for it with
    --require-signature: a model that is unsigned, signed by another key or changed is refused.
    """
    from squeezedet.runtime import bundle, signature

    if sum(value is not None for value in (key, check, new_key)) != 1:
        raise UsageError("give one of `key`, `check` and `new_key`")
    if new_key is not None:
        private, public = signature.new_key(new_key)
        print(f"wrote {private} (keep it to yourself) and {public}")
        return
    if model is None:
        raise UsageError("say which model")
    path = bundle.find(model)
    if check is not None:
        bundle.read(path, trusted_keys=signature.read_keys(check))
        print(f"{path}: signed by one of the keys, and unchanged")
        return
    assert key is not None  # noqa: S101 - one of the three is given
    target = out or path
    bundle.sign(path, key, target)
    print(f"wrote {target}: {target.stat().st_size:,} bytes, signed")
