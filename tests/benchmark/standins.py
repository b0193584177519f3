"""Detectors whose times are known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

from squeezedet.benchmark.turns import Candidate
from squeezedet.detections import Detections
from squeezedet.media.images import Frame


def candidate(
    name: str,
    network_ms: Sequence[float] = (10.0,),
    *,
    preprocess_ms: float = 1.0,
    postprocess_ms: float = 0.5,
    seen: Callable[[str, Frame], object] = lambda name, frame: None,
) -> Candidate:
    """One that finds nothing and says these times, one after the other, and again."""
    times: Iterator[float] = cycle(network_ms)

    def detect(frame: Frame) -> Detections:
        seen(name, frame)
        height, width = frame.pixels.shape[:2]
        return Detections(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
            ("car",),
            image=frame.name,
            width=width,
            height=height,
            timing_ms={"load": 2.0, "preprocess": preprocess_ms, "network": next(times), "postprocess": postprocess_ms},
        )

    return Candidate(
        name=name,
        engine="hand",
        input="64x32",
        parameters=1_048_576,
        file_bytes=4_000_000,
        detect=detect,
        detect_all=detect,
        reopen=lambda: detect,
    )


def pictures(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    """Plain pictures of these sizes."""
    paths = [folder / f"{k}.png" for k in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Image.new("RGB", size, (90, 120, 150)).save(path)
    return paths
