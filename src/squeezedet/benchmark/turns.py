"""Candidates by turns on the same frames: A B A B ..."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from squeezedet.detections import STAGES, Detections
from squeezedet.media.images import Frame, read_image
from squeezedet.media.prefetch import BackgroundWriter, prefetch
from squeezedet.media.sinks import PictureFolder

WARM_UP = 5
"""Rounds that do not count: caches fill, memory is asked for, clocks rise."""
FEWEST_ROUNDS = 5
OURS = ("preprocess", "network", "postprocess")
"""From decoded pixels to boxes: what "end to end" means here."""
Detect = Callable[[Frame], Detections]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that detects and says how long its stages took.

    Attributes:
        name: for the tables.
        engine: what runs it.
        input: which size the network gets, in words.
        parameters: how many numbers it learned.
        file_bytes: size of its file.
        detect: a frame to what is found in it, with ``timing_ms``.
        detect_all: the same with every box, whatever its score, for AP.
        reopen: the same from nothing, in another process, for its memory; it must be picklable.
        operations: frames' sizes to the mean of the operations in the network; None where they cannot be counted.
        note: why this engine runs it, where it was chosen by measuring; else empty.
    """

    name: str
    engine: str
    input: str
    parameters: int
    file_bytes: int
    detect: Detect
    detect_all: Detect
    reopen: Callable[[], Detect]
    operations: Callable[[Sequence[tuple[int, int]]], float] | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of one candidate: load, preprocess, network, postprocess -> one of each round."""

    stages: Mapping[str, Sequence[float]]

    @property
    def end_to_end(self) -> list[float]:
        """Round by round."""
        return [sum(times) for times in zip(*(self.stages[s] for s in OURS), strict=True)]

    @property
    def overhead(self) -> list[float]:
        """What is not the network, as a share of the network's time, round by round."""
        whole = zip(self.end_to_end, self.stages["network"], strict=True)
        return [(total - network) / network for total, network in whole]


@dataclass(frozen=True, slots=True)
class Turns:
    """What a run gave: the timings of each candidate, and the (width, height) of the frame of each round."""

    timings: Sequence[Timings]
    frame_sizes: Sequence[tuple[int, int]]


def take_turns(
    candidates: Sequence[Candidate],
    pictures: Sequence[Path],
    *,
    rounds: int,
    seconds: float | None = None,
    warm_up: int = WARM_UP,
) -> Turns:
    """Time every candidate on one frame, then every one on the next.

    Whatever else the machine does in a round, it does to all. Each candidate reads and decodes the picture itself:
    pixels fresh from the decoder are what is there in use, and meanwhile the threads of the one before, which some
    engines keep spinning for a while, come to rest.

    Args:
        candidates: one at least.
        pictures: files, taken in turn.
        rounds: how many count.
        seconds: stop earlier after so long, but not before five rounds.
        warm_up: rounds before those that count.

    Raises:
        DataError: a picture cannot be read.
        ModelError: a candidate fails.
    """
    times: list[dict[str, list[float]]] = [{s: [] for s in STAGES} for _ in candidates]
    sizes = []
    for number in range(warm_up):
        _round(candidates, pictures[number % len(pictures)])
    start = time.perf_counter()
    for number in range(rounds):
        for mine, found in zip(times, _round(candidates, pictures[number % len(pictures)]), strict=True):
            for stage in STAGES:
                mine[stage].append(found.timing_ms[stage])
        sizes.append((found.width, found.height))
        if seconds is not None and number + 1 >= FEWEST_ROUNDS and time.perf_counter() - start >= seconds:
            break
    return Turns([Timings(mine) for mine in times], sizes)


def _round(candidates: Sequence[Candidate], picture: Path) -> list[Detections]:
    return [candidate.detect(read_image(picture)) for candidate in candidates]


# ------------------------------------------------------------ figures of timings

LOW, HIGH = 5, 95
"""The percentiles between which a spread is given."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Some measurements of one thing, in their own unit; percentiles are NumPy's ``linear`` ones."""

    n: int
    median: float
    p5: float
    p95: float
    mean: float
    minimum: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as much as the first: the median over the rounds, and 5 to 95 % of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def summarize(values: Sequence[float]) -> Summary:
    """The figures of some measurements.

    Raises:
        ValueError: there are none.
    """
    if not len(values):
        raise ValueError("nothing was measured")
    low, median, high = np.percentile(values, (LOW, 50, HIGH))
    return Summary(len(values), float(median), float(low), float(high), float(np.mean(values)), min(values))


def ratio(mine: Sequence[float], first: Sequence[float]) -> Ratio:
    """Mine over the first's, round by round.

    The two of one round were measured one after the other on the same frame, so what slows the machine for longer
    than a round cancels out; the ratio of the medians would not have that.

    Raises:
        ValueError: there are none, or not as many of both.
    """
    found = summarize([a / b for a, b in zip(mine, first, strict=True)])
    return Ratio(found.median, found.p5, found.p95)


# ------------------------------------------------------------ through a folder

BLOCKS = 5
BLOCK_S = 1.0
FEWEST, MOST = 10, 400
"""Frames of a block."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Rates of one candidate, frames per second, medians over the blocks.

    Attributes:
        network: the network's own, 1 / its median time when nothing overlaps.
        boxes: files in, boxes out: the next pictures are decoded while the network runs.
        pictures: the same, and annotated pictures are drawn and written meanwhile.
        boxes_share, pictures_share: of the network's own rate in the same block, with spread.
        frames: in each block.
    """

    network: float
    boxes: float
    pictures: float
    boxes_share: Ratio
    pictures_share: Ratio
    frames: int


def block_frames(end_to_end_ms: float) -> int:
    """How many frames fill a block of about a second."""
    return int(min(max(1000 * BLOCK_S / end_to_end_ms, FEWEST), MOST))


def throughput(
    candidates: Sequence[Candidate], pictures: Sequence[Path], frames: Sequence[int], blocks: int = BLOCKS
) -> list[Throughput]:
    """Rates of each candidate, which gets so many ``frames`` in a block; the blocks of all are interleaved."""
    rates: list[list[tuple[float, float, float]]] = [[] for _ in candidates]
    for _ in range(blocks):
        for mine, candidate, count in zip(rates, candidates, frames, strict=True):
            alone = network_rate(candidate, pictures, count)
            to_boxes = overlapped_rate(candidate, pictures, count)
            with tempfile.TemporaryDirectory(prefix="squeezedet-") as folder:
                to_pictures = overlapped_rate(candidate, pictures, count, Path(folder))
            mine.append((alone, to_boxes, to_pictures))
    found = []
    for mine, count in zip(rates, frames, strict=True):
        network, boxes, drawn = zip(*mine, strict=True)
        medians = summarize(network).median, summarize(boxes).median, summarize(drawn).median
        found.append(Throughput(*medians, ratio(boxes, network), ratio(drawn, network), count))
    return found


def network_rate(candidate: Candidate, pictures: Sequence[Path], count: int) -> float:
    """1 / the network's median time, frame after frame with nothing beside it."""
    return 1000 / median(candidate.detect(frame).timing_ms["network"] for frame in _frames(pictures, count))


def overlapped_rate(candidate: Candidate, pictures: Sequence[Path], count: int, folder: Path | None = None) -> float:
    """Frames per second from files to boxes, or to annotated pictures in a folder.

    From the start of the first file to the end of the last picture: nothing is left out.
    """
    start = time.perf_counter()
    frames = prefetch(_frames(pictures, count))
    if folder is None:
        for frame in frames:
            candidate.detect(frame)
    else:
        with BackgroundWriter(PictureFolder(folder).write) as write:
            for frame in frames:
                write(frame, candidate.detect(frame))
    return count / (time.perf_counter() - start)


def _frames(pictures: Sequence[Path], count: int) -> Iterator[Frame]:
    for path in itertools.islice(itertools.cycle(pictures), count):
        yield read_image(path)
