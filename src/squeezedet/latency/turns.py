"""Candidates by turns on the same frames: A B A B ..."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from squeezedet.detections import Detections
from squeezedet.media.images import Frame, read_image
from squeezedet.media.table import STAGES

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
        parameters: how many numbers it learnt.
        file_bytes: size of its file.
        detect: a frame to what is found in it, with ``timing_ms``.
        judge: the same with every box, whatever its score, for AP.
        reopen: the same from nothing, in another process, for its memory; it must be picklable.
        note: why this engine runs it, where it was chosen by measuring; else empty.
    """

    name: str
    engine: str
    input: str
    parameters: int
    file_bytes: int
    detect: Detect
    judge: Detect
    reopen: Callable[[], Detect]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of one candidate, one of each stage in each round.

    Attributes:
        stages: load, preprocess, network, postprocess -> their times.
    """

    stages: Mapping[str, Sequence[float]]

    @property
    def end_to_end(self) -> list[float]:
        """From decoded pixels to boxes, round by round."""
        return [sum(times) for times in zip(*(self.stages[s] for s in OURS), strict=True)]

    @property
    def overhead(self) -> list[float]:
        """What is not the network, as a share of the network's time, round by round."""
        whole = zip(self.end_to_end, self.stages["network"], strict=True)
        return [(total - network) / network for total, network in whole]


@dataclass(frozen=True, slots=True)
class Turns:
    """What a run by turns gave.

    Attributes:
        timings: of each candidate, in their order.
        frame_sizes: (width, height) of the frame of each round.
        seconds: that the rounds took which count.
    """

    timings: Sequence[Timings]
    frame_sizes: Sequence[tuple[int, int]]
    seconds: float


def take_turns(
    candidates: Sequence[Candidate],
    pictures: Sequence[Path],
    *,
    rounds: int,
    seconds: float | None = None,
    warm_up: int = WARM_UP,
) -> Turns:
    """Time every candidate on one frame, then every one on the next.

    Whatever else the machine does in a round, it does to all. Each candidate reads and decodes
    the picture itself: pixels fresh from the decoder are what is there in use, and meanwhile the
    threads of the one before, which some engines keep spinning for a while, come to rest.

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
        for _ in _round(candidates, pictures[number % len(pictures)]):
            pass
    start = time.perf_counter()
    for number in range(rounds):
        for mine, found in zip(
            times, _round(candidates, pictures[number % len(pictures)]), strict=True
        ):
            for stage in STAGES:
                mine[stage].append(found.timing_ms[stage])
        sizes.append((found.width, found.height))
        passed = time.perf_counter() - start
        if seconds is not None and passed >= seconds and number + 1 >= FEWEST_ROUNDS:
            break
    return Turns([Timings(mine) for mine in times], sizes, time.perf_counter() - start)


def _round(candidates: Sequence[Candidate], picture: Path) -> Iterator[Detections]:
    for candidate in candidates:
        yield candidate.detect(read_image(picture))
