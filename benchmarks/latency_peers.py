"""Our models in any engines and their peers, timed by turns and judged on the same images.

What ``squeezedet benchmark`` measures, with the peers among the candidates: each at its own input
size, by its published preparation and decoding, in onnxruntime. With labels also AP40 by KITTI's
rules of today and VOC's AP50, for cars and pedestrians (COCO, the peers' school, has no cyclist)::

    python benchmarks/latency_peers.py --images FOLDER --peers FOLDER
        [--model squeezedet ...] [--engine NAME ...] [--threads N] [--rounds N] [--json FILE]
    python benchmarks/latency_peers.py --data roads --split val --peers FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from peers import PEERS
from peers.judging import CLASSES, COLUMNS, LEVELS, Figures, figures
from peers.network import PeerDetector, PeerNetwork
from peers.timing import SCORE
from squeezedet.benchmark.latency import Benchmark, BenchmarkPlan, candidates_of, pictures_of, run, tables
from squeezedet.benchmark.turns import Candidate, Detect
from squeezedet.cost import onnx
from squeezedet.cost.layers import count
from squeezedet.data.dataset import read_split
from squeezedet.data.sample import Sample
from squeezedet.errors import SqueezeDetError
from squeezedet.files import write_atomic
from squeezedet.media.images import read_image
from squeezedet.runtime import bundle
from squeezedet.text import align

ENGINE = "onnxruntime"


def peer_candidate(network: PeerNetwork, folder: Path, threads: int | None) -> Candidate:
    """A peer among the candidates; it is timed at the score threshold of use, 0.4.

    Raises:
        UsageError: its file is not in the folder.
        ModelError: onnxruntime cannot run it.
    """
    peer = PeerDetector(network, folder, threads)
    return Candidate(
        name=network.name,
        engine=ENGINE,
        input=peer.input_size,
        parameters=peer.parameters(),
        file_bytes=peer.bytes,
        detect=partial(peer.detect, score=SCORE),
        detect_all=peer.detect,
        reopen=partial(_open, network, folder, threads),
    )


def _open(network: PeerNetwork, folder: Path, threads: int | None) -> Detect:
    return partial(PeerDetector(network, folder, threads).detect, score=SCORE)


def operations(found: Benchmark, models: Sequence[str], engines: int, peers: Path) -> list[float]:
    """Operations of a frame of each candidate; of ours the mean over the frames."""
    counted: list[float] = []
    for model in models:
        read = bundle.read(bundle.find(model))
        sizes = [read.card.input.size(*frame) for frame in found.turns.frame_sizes]
        by_size = {s: count(onnx.read(read.graph, model, s)).flops for s in set(sizes)}
        counted += [sum(by_size[s] for s in sizes) / len(sizes)] * engines
    for network in PEERS:
        content = (peers / network.file).read_bytes()
        counted.append(float(count(onnx.read(content, network.name)).flops))
    return counted


def accuracy(candidates: Sequence[Candidate], samples: Sequence[Sample]) -> list[Figures]:
    """What each candidate is worth on the labelled images."""
    frames = [read_image(sample.image) for sample in samples]
    return [figures(samples, [c.detect_all(frame) for frame in frames], 1) for c in candidates]


def accuracy_table(candidates: Sequence[Candidate], found: Sequence[Figures]) -> str:
    """A row for each candidate: AP in % of each class."""
    heads = [f"{rule.name} {column}" for rule in CLASSES for column in (*LEVELS, "VOC AP50")]
    rows = [["detector", "engine", *heads]]
    for candidate, table in zip(candidates, found, strict=True):
        cells = [table[rule.name].get(column) for rule in CLASSES for column in COLUMNS]
        shown = [f"{100 * f.ap:.1f} ({f.objects})" if f else "-" for f in cells]
        rows.append([candidate.name, candidate.engine, *shown])
    return align(rows, (0, 1), "  ")


def compare(options: argparse.Namespace) -> None:
    """Time, judge, print."""
    engines: list[str | None] = options.engine or [None]
    ours = candidates_of(options.model, engines, threads=options.threads)
    candidates = ours + [peer_candidate(n, options.peers, options.threads) for n in PEERS]
    samples = list(read_split(options.data, options.split)) if options.data else []
    place = nullcontext([s.image for s in samples]) if samples else pictures_of(options.images)
    plan = BenchmarkPlan(rounds=options.rounds, threads=options.threads, with_throughput=options.throughput)
    with place as pictures:
        found = run(candidates, pictures, plan)
    counted = operations(found, options.model, len(engines), options.peers)
    print(tables(found, counted))
    record = found.to_dict(counted)
    if samples:
        judged = accuracy(candidates, samples)
        print(
            f"\nAP in %, KITTI AP40 by the rules of today and VOC AP50, {len(samples)} images "
            f"of {options.split}, objects in brackets\n{accuracy_table(candidates, judged)}"
        )
        for entry, table in zip(record["candidates"], judged, strict=True):
            entry["ap"] = {name: {column: figure.ap for column, figure in row.items()} for name, row in table.items()}
    for sentence in found.warnings:
        print(sentence, file=sys.stderr)
    if options.json:
        write_atomic(options.json, json.dumps(record, indent=2) + "\n")


def main() -> int:
    """Read the options and compare; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder of the peers' ONNX files")
    parser.add_argument("--images", type=Path, help="a folder of images")
    parser.add_argument("--data", type=Path, help="a folder in KITTI's layout, also for AP")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", nargs="+", default=["street"], help="ours: names or bundles")
    parser.add_argument("--engine", nargs="+", help="of ours")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--throughput", action="store_true")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    try:
        compare(parser.parse_args())
    except SqueezeDetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
