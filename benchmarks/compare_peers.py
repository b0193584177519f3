"""The shipped model and its peers on the same images, in one run.

AP40 by KITTI's rules of today and VOC's AP50, each with a 95 % bootstrap interval over
images; size; latency by turns. Cyclists are not compared: COCO, the peers' school, has none::

    python benchmarks/compare_peers.py --data roads --peers FOLDER [--split val] [--json FILE]
        [--markdown] [--model squeezedet ...] [--threads N]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peers import PEERS
from peers.judging import CLASSES, COLUMNS, LEVELS, Contender, Figure, Figures, figures, parts
from peers.network import FLOOR, PeerDetector
from peers.timing import Latency, measure
from squeezedet.data.dataset import read_split
from squeezedet.errors import SqueezeDetError
from squeezedet.files import replacing
from squeezedet.media.images import read_image
from squeezedet.runtime import bundle
from squeezedet.runtime.detector import load
from squeezedet.text import align

Table = list[list[str]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that one run found.

    Attributes:
        head: date, machine, data and number of images, in words.
        contenders: in the order of the tables; ratios are to the first.
        results: images ("KITTI", "all") -> figures of each contender.
        images: images -> their number.
        latency: of each contender.
        rounds: number of timed rounds.
    """

    head: str
    contenders: Sequence[Contender]
    results: dict[str, list[Figures]]
    images: dict[str, int]
    latency: Sequence[Latency]
    rounds: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return {
            "head": self.head,
            "images": self.images,
            "rounds": self.rounds,
            "contenders": [
                {
                    "name": c.name,
                    "input": c.input,
                    "parameters": c.parameters,
                    "bytes": c.bytes,
                    "latency_ms": asdict(self.latency[k]),
                    "results": {
                        part: {
                            name: {column: asdict(figure) for column, figure in row.items()}
                            for name, row in found[k].items()
                        }
                        for part, found in self.results.items()
                    },
                }
                for k, c in enumerate(self.contenders)
            ],
        }


def machine(threads: int | None) -> str:
    """Processor, cores, threads and versions, in words."""
    import onnxruntime

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{names[0] if names else platform.machine()}, {cores} cores, {threads or 'all'} threads, "
        f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}"
    )


def field(options: argparse.Namespace) -> list[Contender]:
    """Our models, then the peers."""
    contenders = []
    for name in options.model:
        path = bundle.find(name)
        ours = load(name, threads=options.threads)
        rule = ours.card.input
        contenders.append(
            Contender(
                name=ours.card.name,
                input=f"{rule.width}x{rule.height}" + ("" if rule.fixed else ", own shape"),
                parameters=ours.card.parameters,
                bytes=path.stat().st_size,
                floor=0.0,
                detect=ours.detect,
            )
        )
    for network in PEERS:
        peer = PeerDetector(network, options.peers, options.threads)
        contenders.append(
            Contender(
                name=network.name,
                input=peer.input_size,
                parameters=peer.parameters(),
                bytes=peer.bytes,
                floor=FLOOR,
                detect=peer.detect,
            )
        )
    return contenders


def compare(options: argparse.Namespace) -> Comparison:
    """Detect, judge and time."""
    contenders = field(options)
    samples = read_split(options.data, options.split)
    frames = [read_image(sample.image) for sample in samples]
    groups = parts(options.data, samples)
    found = [[c.detect(frame, c.floor) for frame in frames] for c in contenders]
    results = {
        part: [figures([samples[i] for i in index], [mine[i] for i in index], options.draws) for mine in found]
        for part, index in groups.items()
    }
    latency = measure(contenders, [sample.image for sample in samples], options.rounds)
    head = (
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {machine(options.threads)}; "
        f"split {options.split}, n = {len(samples)} images, {options.draws} bootstrap draws"
    )
    images = {part: len(index) for part, index in groups.items()}
    return Comparison(head, contenders, results, images, latency, options.rounds)


def accuracy(comparison: Comparison) -> Table:
    """A row for each set of images, class and contender; AP in %, interval in brackets."""
    table = [["images", "class", "detector", *LEVELS, "VOC AP50"]]
    for part, found in comparison.results.items():
        for rule in CLASSES:
            rows = [mine[rule.name] for mine in found]
            counts = next((row for row in rows if row), {})
            of = [str(counts[column].objects) if counts else "-" for column in COLUMNS]
            table.append([f"{part} ({comparison.images[part]})", rule.name, "objects", *of])
            for contender, row in zip(comparison.contenders, rows, strict=True):
                cells = [_cell(row.get(column)) for column in COLUMNS]
                table.append(["", "", contender.name, *cells])
    return table


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "never found"
    return f"{100 * figure.ap:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def cost(comparison: Comparison) -> Table:
    """A row for each contender: size and latency."""
    header = ["detector", "input", "parameters", "file, MB", "network, ms", "ratio"]
    table = [[*header, "end to end, ms", "ratio"]]
    for contender, latency in zip(comparison.contenders, comparison.latency, strict=True):
        table.append(
            [
                contender.name,
                contender.input,
                f"{contender.parameters:,}",
                f"{contender.bytes / 1e6:.2f}",
                f"{latency.network:.1f}",
                f"{latency.network_ratio:.2f}",
                f"{latency.end_to_end:.1f}",
                f"{latency.ratio:.2f}",
            ]
        )
    return table


def markdown(table: Table) -> str:
    """Rows as a table of Markdown."""
    rows = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main() -> int:
    """Compare and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder in KITTI's layout")
    parser.add_argument("--split", default="val")
    parser.add_argument("--peers", type=Path, required=True, help="folder of the peers' ONNX files")
    parser.add_argument("--model", nargs="+", default=["street"], help="ours: names or bundles")
    parser.add_argument("--threads", type=_positive)
    parser.add_argument("--draws", type=_positive, default=1000, help="of the bootstrap")
    parser.add_argument("--rounds", type=_positive, default=100, help="timed images of each detector")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--markdown", action="store_true", help="tables for the README")
    options = parser.parse_args()
    try:
        comparison = compare(options)
        if options.json:
            with replacing(options.json) as temporary:
                text = json.dumps(comparison.to_dict(), indent=2)
                temporary.write_text(text + "\n", encoding="utf-8")
    except SqueezeDetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    layout = markdown if options.markdown else lambda table: align(table, left=(0, 1, 2))
    print(comparison.head)
    print(f"\nAP40 in %, KITTI rules current; VOC AP50 (area)\n\n{layout(accuracy(comparison))}")
    print(f"\nmedians of {comparison.rounds} images by turns\n\n{layout(cost(comparison))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
