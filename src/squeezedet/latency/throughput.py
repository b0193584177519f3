"""Frames per second through a folder of pictures, as ``detect`` works through one."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from squeezedet.latency.summary import Ratio, ratio, summarize
from squeezedet.latency.turns import Candidate
from squeezedet.media.ahead import WriteBehind, read_ahead
from squeezedet.media.images import Frame, read_image
from squeezedet.media.pictures import PictureFolder

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
    candidates: Sequence[Candidate],
    pictures: Sequence[Path],
    frames: Sequence[int],
    blocks: int = BLOCKS,
) -> list[Throughput]:
    """Rates of each candidate; the blocks of all are interleaved.

    Args:
        candidates: one at least.
        pictures: files, taken in turn.
        frames: how many each candidate gets in a block.
        blocks: how many each candidate gets.
    """
    rates: list[list[tuple[float, float, float]]] = [[] for _ in candidates]
    for _ in range(blocks):
        for mine, candidate, count in zip(rates, candidates, frames, strict=True):
            alone = network_rate(candidate, pictures, count)
            boxes = overlapped_rate(candidate, pictures, count)
            with tempfile.TemporaryDirectory(prefix="squeezedet-") as folder:
                drawn = overlapped_rate(candidate, pictures, count, Path(folder))
            mine.append((alone, boxes, drawn))
    return [_figures(mine, count) for mine, count in zip(rates, frames, strict=True)]


def network_rate(candidate: Candidate, pictures: Sequence[Path], count: int) -> float:
    """1 / the network's median time, frame after frame with nothing beside it."""
    found = [candidate.detect(frame) for frame in _frames(pictures, count)]
    return 1000 / median(detections.timing_ms["network"] for detections in found)


def overlapped_rate(
    candidate: Candidate, pictures: Sequence[Path], count: int, folder: Path | None = None
) -> float:
    """Frames per second from files to boxes, or to annotated pictures in a folder.

    From the start of the first file to the end of the last picture: nothing is left out.
    """
    start = time.perf_counter()
    frames = read_ahead(_frames(pictures, count))
    if folder is None:
        for frame in frames:
            candidate.detect(frame)
    else:
        with WriteBehind(PictureFolder(folder).write) as write:
            for frame in frames:
                write(frame, candidate.detect(frame))
    return count / (time.perf_counter() - start)


def _frames(pictures: Sequence[Path], count: int) -> Iterator[Frame]:
    for path in itertools.islice(itertools.cycle(pictures), count):
        yield read_image(path)


def _figures(rates: Sequence[tuple[float, float, float]], count: int) -> Throughput:
    alone, boxes, pictures = zip(*rates, strict=True)
    return Throughput(
        summarize(alone).median,
        summarize(boxes).median,
        summarize(pictures).median,
        ratio(boxes, alone),
        ratio(pictures, alone),
        count,
    )
