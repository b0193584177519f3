"""Accuracy against latency: models at several sizes of input, in one run by turns.

    python benchmarks/frontier.py --data roads --model street street-int8
        --scale 0.5 0.75 1 [--engine openvino] [--threads N] [--rounds N] [--plot frontier.svg]

A scale is of both sides of the model's input, as x0.75 in the paper's Table 2; nothing is trained
for it. AP40 at moderate by KITTI's rules of today on the split; latency of a drawn street of
1242x375 from decoded pixels to boxes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from squeezedet.benchmark.latency import file_bytes, pictures_of
from squeezedet.benchmark.turns import Candidate, Detect, summarize, take_turns
from squeezedet.charts import Axis, Point, scatter_chart
from squeezedet.data.dataset import read_split
from squeezedet.data.sample import Sample
from squeezedet.errors import SqueezeDetError
from squeezedet.evaluation.kitti import evaluate
from squeezedet.files import write_atomic
from squeezedet.media.images import Frame, read_image
from squeezedet.preprocess import STRIDE, InputRule
from squeezedet.runtime import bundle
from squeezedet.runtime.detector import Detector
from squeezedet.text import align

CLASSES = ("car", "pedestrian")


@dataclass(frozen=True, slots=True)
class Entry:
    """One point: AP in % of each class, and what a frame takes."""

    name: str
    size: tuple[int, int]
    ap: Sequence[float]
    network_ms: float
    whole_ms: float

    @property
    def mean_ap(self) -> float:
        """Over the classes."""
        return sum(self.ap) / len(self.ap)


def scaled(rule: InputRule, scale: float) -> InputRule:
    """The rule with both sides times a factor, to a multiple of 16."""
    width, height = (max(1, round(s * scale / STRIDE)) * STRIDE for s in (rule.width, rule.height))
    return replace(rule, width=width, height=height)


def open_scaled(model: str, scale: float, engine: str | None, threads: int | None) -> Detector:
    """A model with a smaller or larger input."""
    found = bundle.read(bundle.find(model))
    card = replace(found.card, input=scaled(found.card.input, scale))
    return Detector(replace(found, card=card), engine=engine, threads=threads)


def candidate(model: str, scale: float, engine: str | None, threads: int | None) -> Candidate:
    """A model at a scale as something to be timed and judged."""
    detector = open_scaled(model, scale, engine, threads)
    rule = detector.card.input
    return Candidate(
        name=f"{Path(model).stem} x{scale:g}",
        engine=detector.engine.name,
        input=f"{rule.width}x{rule.height}",
        parameters=detector.card.parameters,
        file_bytes=file_bytes(model),
        detect=detector.detect,
        detect_all=partial(detector.detect, score=0.0),
        reopen=partial(_reopen, model, scale, engine, threads),
    )


def _reopen(model: str, scale: float, engine: str | None, threads: int | None) -> Detect:
    return open_scaled(model, scale, engine, threads).detect


def average_precision(one: Candidate, samples: Sequence[Sample], frames: Sequence[Frame]) -> list[float]:
    """AP40 at moderate of each class, in %."""
    found = [one.detect_all(frame) for frame in frames]
    results = evaluate([s.objects for s in samples], found, "current").results
    aps = []
    for name in CLASSES:
        levels = results[name]
        aps.append(100 * levels["moderate"].ap40 if levels else 0.0)
    return aps


def measure(options: argparse.Namespace) -> list[Entry]:
    """Every model at every scale."""
    candidates = [
        candidate(model, scale, options.engine, options.threads) for model in options.model for scale in options.scale
    ]
    with pictures_of(None) as pictures:
        timed = take_turns(candidates, pictures, rounds=options.rounds).timings
    samples = read_split(options.data, options.split)
    frames = [read_image(sample.image) for sample in samples]
    entries = []
    for one, times in zip(candidates, timed, strict=True):
        width, height = (int(side) for side in one.input.split("x"))
        aps = average_precision(one, samples, frames)
        network = summarize(times.stages["network"]).median
        whole = summarize(times.end_to_end).median
        entries.append(Entry(one.name, (width, height), aps, network, whole))
    return entries


def table(entries: Sequence[Entry]) -> str:
    """A row for each point, the fastest last."""
    rows = [["model", "input", *CLASSES, "mean AP", "network, ms", "end to end, ms", "frames/s"]]
    for entry in sorted(entries, key=lambda e: -e.whole_ms):
        width, height = entry.size
        figures = [*entry.ap, entry.mean_ap, entry.network_ms, entry.whole_ms]
        cells = [f"{value:.1f}" for value in (*figures, 1000 / entry.whole_ms)]
        rows.append([entry.name, f"{width}x{height}", *cells])
    return align(rows, (0, 1), "  ")


def main() -> int:
    """Measure, print, draw; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder in KITTI's layout")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", nargs="+", default=["street", "street-int8"])
    parser.add_argument("--scale", nargs="+", type=float, default=[0.5, 0.75, 1.0])
    parser.add_argument("--engine")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--plot", type=Path, help="an SVG to write")
    options = parser.parse_args()
    try:
        entries = measure(options)
    except SqueezeDetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(table(entries))
    if options.plot:
        svg = scatter_chart(
            "Accuracy and speed",
            [Point(e.name, 1000 / e.whole_ms, e.mean_ap) for e in entries],
            x=Axis("frames per second, end to end", log=True),
            y=Axis("AP, mean of car and pedestrian, %", high=100),
        )
        write_atomic(options.plot, svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
