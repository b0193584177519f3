"""``squeezedet ota``: models for devices in the field: keys, packages, deltas, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from squeezedet.cli.options import table
from squeezedet.version import __version__

PackagePath = Annotated[Path, Argument(metavar="PACKAGE", help="What `ota pack` wrote.")]
Keys = Annotated[Path, Option(metavar="FILE", help="Trusted public keys; nobody else may write to it.")]
Folder = Annotated[Path, Option("--to", metavar="DIR", help="Folder of the device's models.")]


def keygen(
    name: Annotated[Path, Argument(metavar="NAME", help="NAME.pem and NAME.pub are made.")],
    *,
    root: Annotated[Path | None, Option(metavar="FILE", help="Root key (PEM) to vouch for it (NAME.cert).")] = None,
    days: Annotated[float, Option(min=0.01, max=36500, help="How long it does.")] = 365,
) -> None:
    """Make a root key, or with --root a release key that devices take because of it.

    The newest certificate counts: a device that has seen it refuses packages by earlier ones.

    Examples:
      squeezedet ota keygen root                      # root.pub goes to the devices
      squeezedet ota keygen release --root root.pem   # signs packages, for a year
    """
    from squeezedet.ota.package import keygen as make

    made = make(name, root, days=days)
    print(f"wrote {made[0]} (keep it to yourself), {' and '.join(map(str, made[1:]))}")


def pack(
    model: Annotated[str, Argument(metavar="MODEL", help="A bundle, or a model that comes with us.")],
    *,
    key: Annotated[Path, Option(metavar="FILE", help="Private key (PEM); its .cert is taken from beside it.")],
    version: Annotated[int, Option(min=1, help="Later than all that devices had.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="The package.")],
    base: Annotated[str | None, Option("--from", metavar="MODEL", help="The model devices have: send a delta.")] = None,
    days: Annotated[float, Option(min=0.01, max=36500, help="Until the package expires.")] = 90,
    runtime: Annotated[str, Option(metavar="VERSION", help="Lowest squeezedet that may take it.")] = __version__,
) -> None:
    """Write a signed package: the model or a delta, with pictures and boxes that devices test it on.

    Examples:
      squeezedet ota pack street --key release.pem --version 1 -o 1.ota
      squeezedet ota pack b.bundle --from street --key release.pem --version 2 -o 2.ota
    """
    from squeezedet.ota.package import pack as write

    write(model, out, key, version=version, base=base, days=days, runtime=runtime)
    what = f"the delta from {base}" if base else "the whole model"
    print(f"wrote {out}: {out.stat().st_size:,} bytes, {what}")


def diff(
    old: Annotated[str, Argument(metavar="OLD", help="The model that devices have.")],
    new: Annotated[str, Argument(metavar="NEW", help="The one that they shall get.")],
) -> None:
    """Say what an update would cost: our delta beside zstd, bsdiff (if installed) and the whole model.

    For zstd and bsdiff both models are unpacked first, as for ours: of the compressed files they would gain nothing.

    Examples:
      squeezedet ota diff street b.bundle
    """
    from squeezedet.ota.delta import sizes
    from squeezedet.runtime import bundle

    found = sizes(*(bundle.plain_parts(bundle.find(model)) for model in (old, new)))
    least = min(found, key=lambda name: found[name])
    table([("what is sent", "bytes", ""), *((n, f"{size:,}", "wins" * (n == least)) for n, size in found.items())])


def apply(package: PackagePath, *, to: Folder, keys: Keys) -> None:
    """Take a package: check it, test the new model, and put it in the old one's place.

    All or nothing, also if the power fails. What is refused changes nothing, and one sentence says why.

    Examples:
      squeezedet ota apply 1.ota --to /var/lib/squeezedet --keys root.pub
      squeezedet detect rtsp://camera/stream --model-dir /var/lib/squeezedet
    """
    from squeezedet.ota.device import apply as take

    state, changed = take(package, to, keys)
    print(f"{to}: version {state.current.version} is in use" + ("" if changed else " already"))


def verify(
    package: PackagePath,
    *,
    keys: Keys,
    to: Annotated[Path | None, Option(metavar="DIR", help="Also check it against this device's models.")] = None,
) -> None:
    """Find out whether a package would be taken; nothing is changed.

    Examples:
      squeezedet ota verify 1.ota --keys root.pub
    """
    from squeezedet.ota.device import verify as check

    manifest = check(package, keys, to).manifest
    what = f"delta to {manifest.base[:16]}..." if manifest.base else "whole model"
    print(f"{package}: version {manifest.version}, {what}, {manifest.network}; expires {manifest.expires}")


def rollback(*, to: Folder) -> None:
    """Go back to the model before. The one in use does not come back: the next one needs a later version.

    Examples:
      squeezedet ota rollback --to /var/lib/squeezedet
    """
    from squeezedet.ota.device import rollback as go_back

    print(f"{to}: version {go_back(to).current.version} is in use again")


ota = (keygen, pack, diff, apply, verify, rollback)
