"""Our models and published detectors on the same images and by turns, in one run.

AP40 by KITTI's rules of today with 95 % bootstrap intervals over images, on each data set and on
each of its sources; file size; milliseconds from decoded pixels to boxes in each engine::

    python benchmarks/compare_peers.py --data streets --data roads [--peers FOLDER]
        [--model street some.bundle] [--scale 0.75 1] [--engine onnxruntime openvino]
        [--draws N] [--rounds N] [--threads N] [--plot frontier.svg]

Peers see their own input, and where the published graph allows it also as many pixels as our
models; in float and, quantized by our own quantizer on images of split train, in int8.
``--scale`` is of both sides of our models' input; nothing is trained for it.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from peers.detector import OPENERS, PeerDetector, input_size, prepare
from peers.graphs import normalize_graph, quantize_graph, resize_graph
from peers.networks import PEERS, Peer
from squeezedet.benchmark.latency import KITTI_SIZE, describe_machine, file_bytes
from squeezedet.benchmark.machine import describe
from squeezedet.benchmark.turns import Candidate, Detect, ratio, summarize, take_turns
from squeezedet.charts import Axis, Point, scatter_chart
from squeezedet.data.dataset import read_split
from squeezedet.data.sample import Sample
from squeezedet.detections import Detections
from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.evaluation import kitti
from squeezedet.exporting.int8 import choose_images
from squeezedet.files import write_atomic
from squeezedet.media.images import read_image
from squeezedet.preprocess import STRIDE, InputRule
from squeezedet.runtime import bundle
from squeezedet.runtime.detector import Detector

PIXELS = 1248 * 384
"""Of our networks' input at most, and so of a peer's at equal terms."""
SCORE = 0.4
"""A peer's threshold when it is timed, as in use; at that of AP, NMS would have hundreds of boxes."""
CLASSES = tuple(rule.name for rule in kitti.KITTI_CLASSES)
LEVELS = tuple(level.name for level in kitti.KITTI_LEVELS)
Table = list[list[str]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One AP40: 0 to 1, the ends of its interval, and how many objects it is of."""

    ap: float
    low: float
    high: float
    objects: int


Figures = dict[str, dict[str, Figure]]
"""class -> level -> figure; without the classes that a detector does not know."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was found of one contender.

    Attributes:
        name, input, file_bytes: as of its candidates.
        ms: engine -> median milliseconds from decoded pixels to boxes.
        engine: the fastest; what follows is of it.
        ratio: its time over that of the first contender, median over the rounds.
        figures: set of images -> AP.
    """

    name: str
    input: str
    file_bytes: int
    ms: dict[str, float]
    engine: str
    ratio: float
    figures: dict[str, Figures]


# ------------------------------------------------------------ contenders


def _same(detect: Detect) -> Detect:
    return detect


def scaled(rule: InputRule, scale: float) -> InputRule:
    """The rule with both sides times a factor, to a multiple of 16."""
    width, height = (max(1, round(s * scale / STRIDE)) * STRIDE for s in (rule.width, rule.height))
    return replace(rule, width=width, height=height) if scale != 1 else rule


def our_candidates(options: argparse.Namespace) -> Iterator[Candidate]:
    """Every model at every scale in every engine."""
    stems = [Path(model).stem for model in options.model]
    for model, stem in zip(options.model, stems, strict=True):
        name = stem if stems.count(stem) == 1 else model
        for scale in options.scale:
            found = bundle.read(bundle.find(model))
            rule = scaled(found.card.input, scale)
            read = replace(found, card=replace(found.card, input=rule))
            for engine in options.engine:
                detector = Detector(read, engine=engine, threads=options.threads)
                yield Candidate(
                    name=name + (f" x{scale:g}" if scale != 1 else ""),
                    engine=engine,
                    input=f"{rule.width}x{rule.height}" + ("" if rule.fixed else ", own shape"),
                    parameters=found.card.parameters,
                    file_bytes=file_bytes(model),
                    detect=detector.detect,
                    detect_all=partial(detector.detect, score=0.0),
                    reopen=partial(_same, detector.detect),
                )


def peer_candidates(options: argparse.Namespace, images: Sequence[Path], notes: list[str]) -> Iterator[Candidate]:
    """Every peer at its own input and at our pixels, in float and in int8, in every engine.

    Args:
        options: of the command line.
        images: to calibrate int8 on.
        notes: takes what could not be had, and why.
    """
    for peer in PEERS if options.peers else ():
        path = options.peers / peer.file
        if not path.is_file():
            raise UsageError(f"{path}: no such file; `peers` is the folder of the peers' files")
        content = path.read_bytes()
        if path.suffix == ".xml":
            weights = path.with_suffix(".bin").read_bytes()
            notes.append(f"{peer.name}: a file of OpenVINO's alone: no onnxruntime, and no int8 by a quantizer of ONNX")
            yield from _in_engines(options, peer, content, weights=weights)
            continue
        graph = normalize_graph(content)
        for pixels in (None, PIXELS) if peer.multiple else (None,):
            yield from _in_engines(options, peer, graph, pixels=pixels)
            int8 = _quantized(peer, graph, pixels, images)
            yield from _in_engines(options, peer, int8, pixels=pixels, precision=" int8")


def _quantized(peer: Peer, graph: bytes, pixels: int | None, images: Sequence[Path]) -> bytes:
    size = input_size(peer, KITTI_SIZE, pixels)
    tensors = (prepare(read_image(image).pixels, peer, size)[0] for image in images)
    return quantize_graph(resize_graph(graph, size) if pixels else graph, tensors)


def _in_engines(
    options: argparse.Namespace,
    peer: Peer,
    graph: bytes,
    *,
    weights: bytes = b"",
    pixels: int | None = None,
    precision: str = "",
) -> Iterator[Candidate]:
    shape = "our pixels" if pixels else "x".join(map(str, peer.size))
    for engine in ("openvino",) if weights else options.engine:
        detector = PeerDetector(peer, graph, weights, engine=engine, pixels=pixels, threads=options.threads)
        yield Candidate(
            name=f"{peer.name}{precision}, {shape}",
            engine=engine,
            input=shape,
            parameters=0,
            file_bytes=len(graph) + len(weights),
            detect=partial(detector.detect, score=SCORE),
            detect_all=detector.detect,
            reopen=partial(_same, detector.detect),
        )


# ------------------------------------------------------------ measuring


def fastest(candidates: Sequence[Candidate], pictures: Sequence[Path], rounds: int) -> list[tuple[Candidate, Entry]]:
    """Time every contender in every engine by turns; each in its fastest, with no AP yet."""
    timings = take_turns(candidates, pictures, rounds=rounds).timings
    engines: dict[str, list[int]] = {}
    for i, candidate in enumerate(candidates):
        engines.setdefault(candidate.name, []).append(i)
    ms = [summarize(mine.end_to_end).median for mine in timings]
    best = [min(index, key=lambda i: ms[i]) for index in engines.values()]
    found = []
    for i in best:
        one = candidates[i]
        in_engines = {candidates[k].engine: ms[k] for k in engines[one.name]}
        times = ratio(timings[i].end_to_end, timings[best[0]].end_to_end).median
        found.append((one, Entry(one.name, one.input, one.file_bytes, in_engines, one.engine, times, {})))
    return found


def image_sets(root: Path, split: str, samples: Sequence[Sample]) -> dict[str, list[int]]:
    """Indices of the images of each set: all, KITTI's (by licence in manifest.tsv), and each other source's."""
    title = f"{root.name} {split}"
    sets = {title: list(range(len(samples)))}
    manifest = root / "manifest.tsv"
    if not manifest.is_file():
        return sets
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file, delimiter="\t")}
    for i, sample in enumerate(samples):
        row = rows.get(sample.id, {})
        source = "KITTI" if "KITTI" in (row.get("licence") or "") else row.get("source") or "unknown"
        sets.setdefault(f"{title}: {source}", []).append(i)
    return sets if len(sets) > 2 else {title: sets[title]}


def figures(samples: Sequence[Sample], found: Sequence[Detections], draws: int) -> Figures:
    """What one contender is worth on some images."""
    truth = [sample.objects for sample in samples]
    known = [rule for rule in kitti.KITTI_CLASSES if rule.name in found[0].names]
    bounds = kitti.intervals(truth, found, "current", classes=known, draws=draws).bounds
    result = kitti.evaluate(truth, found, "current", known)
    table: Figures = {rule.name: {} for rule in known}
    for name, levels in result.results.items():
        for level, one in (levels or {}).items():
            table[name][level] = Figure(one.ap40, *bounds[f"{name}/{level}/ap40"], one.objects)
    return table


def evaluate_on(root: Path, split: str, contenders: Sequence[tuple[Candidate, Entry]], draws: int) -> dict[str, int]:
    """Let every contender detect in every image, add its figures of each set; the sets' sizes."""
    samples = read_split(root, split)
    found: list[list[Detections]] = [[] for _ in contenders]
    for sample in samples:
        frame = read_image(sample.image)
        for mine, (candidate, _) in zip(found, contenders, strict=True):
            mine.append(candidate.detect_all(frame))
    sets = image_sets(root, split, samples)
    for name, index in sets.items():
        for mine, (_, entry) in zip(found, contenders, strict=True):
            entry.figures[name] = figures([samples[i] for i in index], [mine[i] for i in index], draws)
    return {name: len(index) for name, index in sets.items()}


# ------------------------------------------------------------ output


def accuracy_table(entries: Sequence[Entry], images: str) -> Table:
    """A row for each contender: AP40 in % at easy / moderate [its interval] / hard of each class."""
    heads = ["AP40 easy / moderate [95 %] / hard"]
    for name in CLASSES:
        counts = next((e.figures[images][name] for e in entries if e.figures[images].get(name)), {})
        numbers = " / ".join(str(counts[level].objects) for level in LEVELS if level in counts)
        heads.append(f"{name} ({numbers or 0})")
    return [heads, *([e.name, *(_cell(e.figures[images].get(name)) for name in CLASSES)] for e in entries)]


def _cell(levels: dict[str, Figure] | None) -> str:
    if levels is None:
        return "-"
    if not levels:
        return "never found"
    easy, moderate, hard = (levels[level] for level in LEVELS)
    if not hard.objects:
        return "no object"
    interval = f"[{100 * moderate.low:.1f}, {100 * moderate.high:.1f}]"
    return f"{100 * easy.ap:.1f} / {100 * moderate.ap:.1f} {interval} / {100 * hard.ap:.1f}"


def cost_table(entries: Sequence[Entry]) -> Table:
    """A row for each contender: its file, and what a frame takes."""
    engines = list(dict.fromkeys(engine for entry in entries for engine in entry.ms))
    table = [["detector", "file, MB", *(f"{engine}, ms" for engine in engines), "fastest, ratio"]]
    for entry in entries:
        times = [f"{entry.ms[engine]:.1f}" if engine in entry.ms else "-" for engine in engines]
        table.append([entry.name, f"{entry.file_bytes / 1e6:.2f}", *times, f"{entry.ratio:.2f}"])
    return table


def frontier(entries: Sequence[Entry], peers: Sequence[str], images: str) -> str:
    """AP40 at moderate of each class against milliseconds, as SVG."""
    charts = []
    for name in CLASSES:
        points = [
            Point(_short(e), e.ms[e.engine], 100 * e.figures[images][name]["moderate"].ap, int(e.name in peers))
            for e in entries
            if e.figures[images].get(name)
        ]
        y = Axis("AP40 moderate, %", low=0, high=100)
        x = Axis("milliseconds from decoded pixels to boxes", log=True)
        charts.append(scatter_chart(f"{name}, {images}", points, x=x, y=y, groups=("ours", "peers")))
    return column(charts)


def column(charts: Sequence[str]) -> str:
    """Charts one above the other in one picture."""
    sizes = [[float(v) for v in c.partition('viewBox="0 0 ')[2].split('"')[0].split()] for c in charts]
    width = max(size[0] for size in sizes)
    parts, top = [], 0.0
    for chart, (_, height) in zip(charts, sizes, strict=True):
        parts.append(chart.replace("<svg ", f'<svg y="{top:.0f}" ', 1))
        top += height
    size = f'viewBox="0 0 {width:.0f} {top:.0f}" width="{width:.0f}" height="{top:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n' + "\n".join(parts) + "</svg>\n"


def _short(entry: Entry) -> str:
    """The name in a picture: a peer's own input need not be said."""
    return entry.name if entry.input == "our pixels" else entry.name.removesuffix(f", {entry.input}")


def markdown(table: Table) -> str:
    """Rows as a table of Markdown."""
    rows = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def compare(options: argparse.Namespace) -> None:
    """Time, evaluate, print, write."""
    machine = describe()
    notes: list[str] = []
    ours = list(our_candidates(options))
    images = choose_images([sample.image for sample in read_split(options.data[0], "train")])
    peers = list(peer_candidates(options, images, notes))
    samples = read_split(options.data[0], options.split)
    first = image_sets(options.data[0], options.split, samples)
    shown = next((name for name in first if name.endswith(": KITTI")), next(iter(first)))
    contenders = fastest(ours + peers, [samples[i].image for i in first[shown]], options.rounds)
    sets: dict[str, int] = {}
    for root in options.data:
        sets |= evaluate_on(root, options.split, contenders, options.draws)
    entries = [entry for _, entry in contenders]
    print(f"{describe_machine(machine, options.threads)}\n{options.draws} draws of the bootstrap")
    for name, count in sets.items():
        print(f"\n{name}, n = {count} images\n\n{markdown(accuracy_table(entries, name))}")
    print(f"\nmedians of {options.rounds} rounds by turns on {shown}\n\n{markdown(cost_table(entries))}")
    print("\n".join(["", *notes]))
    if options.plot:
        write_atomic(options.plot, frontier(entries, [peer.name for peer in peers], shown))


def main() -> int:
    """Read the options and compare; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="a folder in KITTI's layout")
    parser.add_argument("--split", default="val")
    parser.add_argument("--peers", type=Path, help="folder of the peers' files; ours alone without")
    parser.add_argument("--model", nargs="+", default=["street"], help="ours: names or bundles")
    parser.add_argument("--scale", nargs="+", type=float, default=[1.0], help="of our models' input")
    parser.add_argument("--engine", nargs="+", choices=list(OPENERS), default=list(OPENERS))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--rounds", type=int, default=100, help="timed images of each contender")
    parser.add_argument("--plot", type=Path, help="also write the frontier, an SVG")
    try:
        compare(parser.parse_args())
    except SqueezeDetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
