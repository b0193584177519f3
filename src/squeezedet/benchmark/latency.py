"""A whole benchmark: models in engines, timed by turns, with their memory; as tables and JSON."""

from __future__ import annotations

import datetime
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezedet.benchmark.machine import Machine, PeakMemory, Watch, describe, peak_memory
from squeezedet.benchmark.turns import Candidate, Detect, Ratio, Summary, Timings, Turns, ratio, summarize, take_turns
from squeezedet.data.dataset import detect_layout
from squeezedet.detections import STAGES
from squeezedet.drawing import encode_picture
from squeezedet.errors import DataError, MissingExtraError, ModelError, SqueezeDetError, UsageError
from squeezedet.evaluation.evaluate import read_data
from squeezedet.files import write_atomic
from squeezedet.media.sources import Failure, locate
from squeezedet.preprocess import InputRule
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import WEIGHTS
from squeezedet.runtime.detector import Detector, load
from squeezedet.text import counted

if TYPE_CHECKING:
    from squeezedet.cost.layers import Cost

FORMAT = "squeezedet benchmark 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found of one candidate.

    Attributes:
        candidate: which.
        timings: every measurement, by turns.
        stages: load, preprocess, network, postprocess -> milliseconds.
        end_to_end: milliseconds from decoded pixels to boxes.
        overhead: all but the network, as a share of the network's time.
        network_ratio, ratio: network, and end to end, over the first candidate's.
        memory: None where it was not measured.
        operations: of a frame in the network, on average; None where they were not counted.
    """

    candidate: Candidate
    timings: Timings
    stages: Mapping[str, Summary]
    end_to_end: Summary
    overhead: Summary
    network_ratio: Ratio
    ratio: Ratio
    memory: PeakMemory | None
    operations: float | None

    @property
    def frames_per_s(self) -> float:
        """One stream, from decoded pixels to boxes."""
        return 1000 / self.end_to_end.median

    @property
    def operations_per_s(self) -> float | None:
        """How fast the network computes; None where its operations were not counted."""
        return None if self.operations is None else 1000 * self.operations / self.stages["network"].median

    def to_dict(self) -> dict[str, Any]:
        """Every figure and every single measurement."""
        return {
            "name": self.candidate.name,
            "engine": self.candidate.engine,
            "engine_note": self.candidate.note,
            "input": self.candidate.input,
            "parameters": self.candidate.parameters,
            "file_bytes": self.candidate.file_bytes,
            "stages_ms": {stage: asdict(found) for stage, found in self.stages.items()},
            "end_to_end_ms": asdict(self.end_to_end),
            "frames_per_s": self.frames_per_s,
            "overhead": asdict(self.overhead),
            "network_ratio": asdict(self.network_ratio),
            "end_to_end_ratio": asdict(self.ratio),
            "operations": self.operations,
            "operations_per_s": self.operations_per_s,
            "memory": asdict(self.memory) if self.memory else None,
            "samples_ms": {stage: list(times) for stage, times in self.timings.stages.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Everything that one run found.

    Attributes:
        date: of its start, UTC.
        machine: as it was before the run.
        plan: what was asked for, by name.
        pictures: how many there were to choose from.
        turns: the run by turns.
        results: of each candidate; ratios are to the first.
        others: share of the processor that others took while the turns ran; None if unknown.
        warnings: what may mislead, one sentence each.
    """

    date: str
    machine: Machine
    plan: Mapping[str, Any]
    pictures: int
    turns: Turns
    results: Sequence[Result]
    others: float | None
    warnings: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Every figure and every single measurement, ready for JSON."""
        return {
            "format": FORMAT,
            "date": self.date,
            "machine": {**asdict(self.machine), "flags": list(self.machine.flags)},
            "others_share": self.others,
            "warnings": list(self.warnings),
            "plan": dict(self.plan),
            "pictures": self.pictures,
            "rounds": len(self.turns.frame_sizes),
            "frame_sizes": [list(size) for size in self.turns.frame_sizes],
            "candidates": [result.to_dict() for result in self.results],
        }


def run(
    candidates: Sequence[Candidate],
    pictures: Sequence[Path],
    *,
    rounds: int = 100,
    seconds: float | None = None,
    threads: int | None = None,
    with_memory: bool = True,
) -> Benchmark:
    """Time candidates by turns, and what else a table of them says.

    Args:
        candidates: one at least; ratios are to the first.
        pictures: taken in turn.
        rounds: of the turns.
        seconds: that the turns may take; None for all rounds.
        threads: that the candidates were opened with; None for their own choice.
        with_memory: also open each candidate in a process of its own.

    Raises:
        DataError: a picture cannot be read.
        ModelError: a candidate fails.
    """
    date = f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d %H:%M} UTC"
    machine = describe()
    warnings = machine.warnings
    with Watch() as watch:
        turns = take_turns(candidates, pictures, rounds=rounds, seconds=seconds)
    warnings += watch.warnings
    first = turns.timings[0]
    results = [
        Result(
            candidate=candidate,
            timings=timings,
            stages={stage: summarize(timings.stages[stage]) for stage in STAGES},
            end_to_end=summarize(timings.end_to_end),
            overhead=summarize(timings.overhead),
            network_ratio=ratio(timings.stages["network"], first.stages["network"]),
            ratio=ratio(timings.end_to_end, first.end_to_end),
            memory=_memory(candidate, pictures[0], warnings) if with_memory else None,
            operations=_operations(candidate, turns.frame_sizes, warnings),
        )
        for candidate, timings in zip(candidates, turns.timings, strict=True)
    ]
    plan = {"rounds": rounds, "seconds": seconds, "threads": threads}
    return Benchmark(
        date=date, machine=machine, plan=plan, pictures=len(pictures), turns=turns, results=results,
        others=watch.others, warnings=list(dict.fromkeys(warnings)),
    )  # fmt: skip


def _memory(candidate: Candidate, picture: Path, warnings: list[str]) -> PeakMemory | None:
    try:
        return peak_memory(candidate.reopen, picture)
    except SqueezeDetError as error:
        warnings.append(f"{candidate.name}, {candidate.engine}: no peak memory: {error}")
        return None


def _operations(candidate: Candidate, frames: Sequence[tuple[int, int]], warnings: list[str]) -> float | None:
    try:
        return candidate.operations(frames) if candidate.operations else None
    except (MissingExtraError, ModelError) as error:
        warnings.append(f"operations are not counted: {error}")
        return None


# ------------------------------------------------------------ candidates

DEMO = "demo.*"
"""The picture that comes with the package: a drawn street."""
KITTI_SIZE = (1242, 375)
JPEG_QUALITY = 92


def open_detector(
    model: str,
    engine: str | None = None,
    threads: int | None = None,
    size: tuple[int, int] | None = None,
    trust_model: bool = False,
) -> Detector:
    """A detector as ``runtime.detector.load`` gives it; with a (width, height), every frame is stretched to it.

    Raises:
        UsageError: no such model or engine, the engine is not installed, or no such size.
        ModelError: the model is damaged, or the engine cannot run it.
    """
    if size is None:
        return load(model, engine=engine, threads=threads, trust_model=trust_model)
    try:
        rule = InputRule(*size, fixed=True)
    except ValueError as error:
        raise UsageError(f"`size`: {error}") from error
    found = bundle.read(bundle.find(model), trust_model=trust_model)
    card = replace(found.card, input=rule)
    return Detector(replace(found, card=card), engine=engine, threads=threads)


def candidates_of(
    models: Sequence[str],
    engines: Sequence[str | None],
    *,
    threads: int | None = None,
    size: tuple[int, int] | None = None,
    trust_model: bool = False,
) -> list[Candidate]:
    """Every model in every engine, model by model.

    Raises:
        UsageError, ModelError: as ``open_detector``, before anything is timed.
    """
    stems = [Path(model).stem for model in models]
    # Models of one stem are told apart by their paths.
    names = [stem if stems.count(stem) == 1 else model for stem, model in zip(stems, models, strict=True)]
    options: dict[str, Any] = {"threads": threads, "size": size, "trust_model": trust_model}
    return [
        _candidate(name, model, engine, options)
        for name, model in zip(names, models, strict=True)
        for engine in engines
    ]


def _candidate(name: str, model: str, engine: str | None, options: Mapping[str, Any]) -> Candidate:
    detector = open_detector(model, engine, **options)
    rule = detector.card.input
    shape = f"{rule.width}x{rule.height}"
    return Candidate(
        name=name,
        engine=detector.engine.name,
        input=shape if rule.fixed else f"{shape}, own shape",
        parameters=detector.card.parameters,
        file_bytes=file_bytes(model),
        detect=detector.detect,
        detect_all=partial(detector.detect, score=0.0),
        reopen=partial(_reopen, model, detector.engine.name, options),
        operations=partial(mean_operations, model, size=options["size"]),
        note=f"{name}: {detector.decision.describe()}" if detector.decision else "",
    )


def _reopen(model: str, engine: str, options: Mapping[str, Any]) -> Detect:
    return open_detector(model, engine, **options).detect


@contextmanager
def pictures_of(images: Path | None, split: str | None = None) -> Iterator[list[Path]]:
    """The images of a folder or of a split of a labelled data set, or else the demo picture at 1242x375.

    At that size, KITTI's, a model for 1248x384 has to resize it, as it has to with a camera's pictures.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if images is not None:
        yield _images(images, split)
        return
    from PIL import Image

    with tempfile.TemporaryDirectory(prefix="squeezedet-") as place:
        with Image.open(next(iter(sorted(WEIGHTS.glob(DEMO))))) as picture:
            path = Path(place) / "demo.jpg"
            write_atomic(path, encode_picture(picture.resize(KITTI_SIZE), quality=JPEG_QUALITY))
        yield [path]


def _images(place: Path, split: str | None) -> list[Path]:
    if not place.exists():
        raise DataError(f"{place}: no such folder of images")
    try:
        detect_layout(place)
    except DataError:  # a plain folder
        if split is not None or place.is_file():
            raise
    else:
        return list(read_data(place, split).images or ())
    found = []
    for item in locate([str(place)]):
        if isinstance(item, Failure):
            raise item.error
        found.append(Path(item.name))
    return found


def mean_operations(model: str, frames: Sequence[tuple[int, int]], size: tuple[int, int] | None = None) -> float:
    """Operations (2 x MACs) in a model's network, the mean over frames of these (width, height).

    Args:
        model: name or path.
        frames: (width, height) of each frame.
        size: of the network's input; None for what the model makes of the frames.

    Raises:
        MissingExtraError, ModelError: as ``cost_of``.
    """
    rule = bundle.read_card(bundle.find(model)).input
    inputs = Counter(size or rule.size(*frame) for frame in frames)
    return sum(times * cost_of(model, shape).flops for shape, times in inputs.items()) / inputs.total()


def cost_of(model: str, size: tuple[int, int] | None = None) -> Cost:
    """What a model's network costs, which was opened before, at this (width, height) or that of its card.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: it is no ONNX graph, or a damaged one.
    """
    from squeezedet.cost import onnx
    from squeezedet.cost.layers import count

    found = bundle.read(bundle.find(model), trust_model=True)
    if found.format != "onnx":
        raise ModelError(f"{model}: a file for {found.format}; only ONNX graphs are counted")
    rule = found.card.input
    return count(onnx.read(found.graph, model, size or (rule.width, rule.height)))


def file_bytes(model: str) -> int:
    """Size of a model's file, and of the weights where they are in a file of their own."""
    path = bundle.find(model)
    return path.stat().st_size + len(bundle.read(path, trust_model=True).weights)


# ------------------------------------------------------------ tables

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Table:
    """A title, rows of which the first is the heading, and how many columns hold words instead of numbers."""

    title: str
    rows: Sequence[Sequence[str]]
    words: int = 2


def tables(benchmark: Benchmark) -> list[Table]:
    """A table each for time, ratios, and cost."""
    sizes = set(benchmark.turns.frame_sizes)
    shown = "{}x{}".format(*benchmark.turns.frame_sizes[0]) if len(sizes) == 1 else f"{len(sizes)} sizes"
    rounds, pictures = len(benchmark.turns.frame_sizes), counted(benchmark.pictures, "picture")
    results = benchmark.results
    times_head = (
        *("input", "load", "preprocess", "network", "p95", "postprocess"),
        *("end to end", "p95", "frames/s", "overhead"),
    )
    title = f"one stream, {rounds} rounds by turns over {pictures} of {shown}; median and 95th percentile, ms"
    found = [_table(title, times_head, results, _times, words=3)]
    if len(results) > 1:
        first = f"{results[0].candidate.name} in {results[0].candidate.engine}"
        title = f"times as long as {first}, median of the rounds [5 to 95 % of them]"
        found.append(_table(title, ("network", "end to end"), results, lambda r: [str(r.network_ratio), str(r.ratio)]))
    costs_head = ("file, MB", "parameters", "peak memory, MiB", "GFLOP", "GFLOP/s")
    return [*found, _table("size and operations", costs_head, results, _cost)]


def _table(
    title: str, head: Sequence[str], results: Sequence[Result], cells: Callable[[Result], list[str]], words: int = 2
) -> Table:
    rows = [(r.candidate.name, r.candidate.engine, *cells(r)) for r in results]
    return Table(title, [("model", "engine", *head), *rows], words)


def describe_machine(machine: Machine, threads: int | None) -> str:
    """The machine in two lines."""
    memory = f", {machine.memory_bytes / 2**30:.1f} GiB" if machine.memory_bytes else ""
    flags = f" ({' '.join(machine.flags)})" if machine.flags else ""
    clock = f", governor {machine.governor}" if machine.governor else ""
    load = "" if machine.load_1m is None else f", load {machine.load_1m:.2f} before"
    count = "1 thread" if threads == 1 else f"{threads or 'all'} threads"
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    return (
        f"{machine.cpu}{flags}, {machine.cores} cores, {count}{memory}{clock}"
        f"{load}\n{machine.system}, Python {machine.python}, {versions}"
    )


def _times(result: Result) -> list[str]:
    stages, whole = result.stages, result.end_to_end
    network = stages["network"]
    times_ms = [
        *(stages["load"].median, stages["preprocess"].median, network.median, network.p95),
        *(stages["postprocess"].median, whole.median, whole.p95),
    ]
    cells = [f"{time_ms:.2f}" for time_ms in times_ms]
    return [result.candidate.input, *cells, f"{result.frames_per_s:.1f}", f"{result.overhead.median:.1%}"]


def _cost(result: Result) -> list[str]:
    operations, rate, memory = result.operations, result.operations_per_s, result.memory
    return [
        f"{result.candidate.file_bytes / 1e6:.2f}",
        f"{result.candidate.parameters:,}",
        f"{memory.peak_bytes / MIB:.0f} ({memory.before_bytes / MIB:.0f} before)" if memory else "-",
        "-" if operations is None else f"{operations / 1e9:.2f}",
        "-" if rate is None else f"{rate / 1e9:.0f}",
    ]
