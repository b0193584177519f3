"""Bytes of an update over the air: whole, and as a delta by us, by zstd and by bsdiff; for one device and for a fleet.

    python benchmarks/ota_bytes.py [OLD.bundle NEW.bundle]

Without arguments: the shipped model ``street``, and its first version in the history of this repository. The update of
the heads alone is OLD with the tensors of both ConvDets of NEW, as if nothing else had been trained.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from squeezedet.ota import delta, package
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import CARD, GRAPH
from squeezedet.runtime.card import Card

ROOT = Path(__file__).resolve().parents[1]
FIRST = "f3fb347:src/squeezedet/weights/street.bundle"
HEADS = ("detector.convdet.", "detector.fine.")
FLEETS = (1, 10**4, 10**6)


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if len(arguments) == 2:
            old, new = (Path(argument) for argument in arguments)
        else:
            old, new = folder / "first.bundle", bundle.find("street")
            old.write_bytes(subprocess.run(["git", "show", FIRST], cwd=ROOT, check=True, capture_output=True).stdout)
        targets = {"all trained": new}
        if parts := with_heads(bundle.plain_parts(old), bundle.plain_parts(new)):
            targets["heads alone"] = folder / "heads.bundle"
            targets["heads alone"].write_bytes(bundle.plain_bytes(parts))
        print("| what is sent | bytes |" + "".join(f" {devices:,} devices |" for devices in FLEETS[1:]))
        print("|---|---|" + "---|" * len(FLEETS[1:]))
        for what, size in rows(folder, old, targets):
            print(f"| {what} | {size:,} |" + "".join(f" {readable(size * devices)} |" for devices in FLEETS[1:]))


def rows(folder: Path, old: Path, targets: dict[str, Path]) -> Iterator[tuple[str, int]]:
    new = targets["all trained"]
    card = bundle.read_card(new)
    yield f"the weights as float32 ({card.parameters:,} numbers)", 4 * card.parameters
    yield "the int8 bundle as it is", new.stat().st_size
    for what, target in targets.items():
        for name, size in delta.sizes(bundle.plain_parts(old), bundle.plain_parts(target)).items():
            yield f"{what}: {name}", size
    package.keygen(folder / "key")
    for what, target, base in (("whole", new, None), *((f"delta, {name}", one, old) for name, one in targets.items())):
        path = folder / "a.ota"
        package.pack(target, path, folder / "key.pem", version=1, base=base)
        yield f"package, signed and with samples: {what}", path.stat().st_size


def with_heads(old: dict[str, bytes], new: dict[str, bytes]) -> dict[str, bytes]:
    """The old model with the heads of the new one; no model if these are laid out in another way."""
    graph, wanted = bytearray(old[GRAPH]), delta.tensors(new[GRAPH])
    places = {name: place for name, place in delta.tensors(old[GRAPH]).items() if name.startswith(HEADS)}
    for name, place in places.items():
        if len(places) != sum(other.startswith(HEADS) for other in wanted) or name not in wanted:
            return {}
        graph[place.start : place.stop] = new[GRAPH][wanted[name].start : wanted[name].stop]
    card = replace(Card.from_json(old[CARD], "old"), graph_sha256=hashlib.sha256(graph).hexdigest())
    return {CARD: card.to_json().encode(), GRAPH: bytes(graph)}


def readable(size: float) -> str:
    power = min((len(str(int(size))) - 1) // 3, 4)
    return f"{size / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


if __name__ == "__main__":
    main(sys.argv[1:])
