"""What int8 costs in AP: a model in float and in int8.

    python benchmarks/int8_table.py --data roads --model wide.bundle

Calibrates on the training split and judges on the validation split, moderate AP40 by KITTI's current rules.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from squeezedet.data.dataset import read_split
from squeezedet.data.sample import Sample
from squeezedet.evaluation.kitti import evaluate
from squeezedet.exporting.int8 import quantize
from squeezedet.media.images import Frame, read_image
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.detector import Detector
from squeezedet.text import align

CLASSES = ("car", "pedestrian")


def row(name: str, model: Bundle, samples: Sequence[Sample], frames: Sequence[Frame], engine: str) -> tuple[str, ...]:
    """Name, bytes of the graph, AP of each class and their mean, in points."""
    detector = Detector(model, engine=engine)
    found = [detector.detect(frame, score=0.0) for frame in frames]
    results: Any = evaluate([s.objects for s in samples], found, "current").results
    points = [100 * results[c]["moderate"].ap40 for c in CLASSES]
    cells = [*points, sum(points) / len(points)]
    return name, engine, f"{len(model.graph):,}", *(f"{value:.1f}" for value in cells)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="street")
    parser.add_argument("--engines", nargs="+", default=["onnxruntime"])
    parser.add_argument("--images", type=int, default=64, help="to calibrate on")
    given = parser.parse_args()

    model = bundle.read(bundle.find(given.model))
    train = [sample.image for sample in read_split(given.data, "train")]
    train = [train[i * len(train) // given.images] for i in range(given.images)]
    samples = read_split(given.data, "val")
    frames = [read_image(sample.image) for sample in samples]
    made = {"float": model, "int8": quantize(model, train)}
    rows: list[tuple[str, ...]] = [("model", "engine", "graph bytes", *CLASSES, "mean")]
    for engine in given.engines:
        for name, candidate in made.items():
            rows.append(row(name, candidate, samples, frames, engine))
            print(align(rows[-1:]), flush=True)
    print(align(rows, left=(0, 1)))


if __name__ == "__main__":
    main()
