"""Candidates by turns on the same frames: A B A B ..."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from squeezedet.detections import STAGES, Detections
from squeezedet.media.images import Frame, read_image

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
    """Some measurements of one thing, in their own unit."""

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
