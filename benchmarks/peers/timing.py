"""How long each contender takes, in turn on the same images: A B C A B C ...

Taking turns makes whatever else the machine does hit all alike; the ratio to the first is
the median of the ratios within each round. As in ``squeezedet.benchmark.turns`` each contender
decodes the picture itself: pixels fresh from the decoder are what is there in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from peers.judging import Contender
from squeezedet.media.images import read_image

WARM_UP = 5
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


def measure(
    contenders: Sequence[Contender], pictures: Sequence[Path], rounds: int
) -> list[Latency]:
    """Latency of each contender; a round is one image through all of them.

    Args:
        contenders: one at least; ratios are to the first.
        pictures: files, taken in turn.
        rounds: how many count, after five to warm up.
    """
    network: list[list[float]] = [[] for _ in contenders]
    whole: list[list[float]] = [[] for _ in contenders]
    for i in range(rounds + WARM_UP):
        for k, contender in enumerate(contenders):
            timing = contender.detect(read_image(pictures[i % len(pictures)]), SCORE).timing_ms
            network[k].append(timing["network"])
            whole[k].append(sum(timing[s] for s in ("preprocess", "network", "postprocess")))
    return [
        Latency(
            network=median(mine[WARM_UP:]),
            end_to_end=median(all_mine[WARM_UP:]),
            network_ratio=_ratio(mine, network[0]),
            ratio=_ratio(all_mine, whole[0]),
        )
        for mine, all_mine in zip(network, whole, strict=True)
    ]


def _ratio(mine: Sequence[float], first: Sequence[float]) -> float:
    return median(a / b for a, b in zip(mine[WARM_UP:], first[WARM_UP:], strict=True))
