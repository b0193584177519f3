"""How long each contender takes, in turn on the same images: A B C A B C ...

The turns are those of ``squeezedet.benchmark.turns``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peers.judging import Contender
from squeezedet.benchmark.turns import Candidate, Detect, ratio, summarize, take_turns
from squeezedet.detections import Detections
from squeezedet.media.images import Frame

SCORE = 0.4
"""A threshold as in use: at the judge's floor, suppression would have hundreds of boxes."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Median milliseconds an image.

    Attributes:
        network: of the graph alone.
        end_to_end: from decoded pixels to boxes.
        network_ratio, ratio: to the first contender's, medians over the rounds.
    """

    network: float
    end_to_end: float
    network_ratio: float
    ratio: float


def measure(contenders: Sequence[Contender], pictures: Sequence[Path], rounds: int) -> list[Latency]:
    """Latency of each contender; a round is one image through all of them.

    Args:
        contenders: one at least; ratios are to the first.
        pictures: files, taken in turn.
        rounds: how many count, after five to warm up.
    """
    candidates = [_candidate(contender) for contender in contenders]
    timings = take_turns(candidates, pictures, rounds=rounds).timings
    first = timings[0]
    return [
        Latency(
            network=summarize(mine.stages["network"]).median,
            end_to_end=summarize(mine.end_to_end).median,
            network_ratio=ratio(mine.stages["network"], first.stages["network"]).median,
            ratio=ratio(mine.end_to_end, first.end_to_end).median,
        )
        for mine in timings
    ]


def _candidate(contender: Contender) -> Candidate:
    def detect(frame: Frame) -> Detections:
        return contender.detect(frame, SCORE)

    def reopen() -> Detect:
        return detect

    return Candidate(
        name=contender.name,
        engine="",
        input="",
        parameters=0,
        file_bytes=0,
        detect=detect,
        detect_all=detect,
        reopen=reopen,
    )
