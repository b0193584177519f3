"""How long the KITTI protocol takes on a validation half, and how much memory.

Labels: KITTI's own, from an archive of ``label_2``. Detections are made from them:
jittered, missed, doubled, misnamed, invented. Run with::

    python benchmarks/kitti_evaluation.py PATH/kitti_label_2.tar.xz
"""

from __future__ import annotations

import argparse
import resource
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from squeezedet.data.kitti import read_labels
from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.evaluation.kitti import evaluate

NAMES = ("car", "pedestrian", "cyclist")


def labels_of(archive: Path, images: int) -> list[Objects]:
    """The first label files of the archive."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        return [read_labels(path) for path in sorted(Path(folder).rglob("*.txt"))[:images]]


def invent(objects: Objects, rng: np.random.Generator) -> Detections:
    """Detections as a fair detector would give them, one or two for each object."""
    real = np.array([t.lower() in (*NAMES, "van") for t in objects.types], dtype=bool)
    boxes = np.repeat(objects.xyxy[real], rng.choice([0, 1, 2, 3], p=[0.1, 0.6, 0.2, 0.1]), axis=0)
    boxes = boxes + rng.normal(0, 3, boxes.shape)
    invented = rng.uniform(0, 300, (rng.poisson(1.5), 2))
    boxes = np.concatenate([boxes, np.hstack([invented, invented + rng.uniform(20, 90, invented.shape)])])
    boxes[:, 2:] = np.maximum(boxes[:, :2] + 1, boxes[:, 2:])
    score = np.sort(rng.uniform(0, 1, len(boxes)))[::-1]
    return Detections(
        boxes.astype(np.float32), score.astype(np.float32), rng.choice(3, len(boxes), p=[0.7, 0.2, 0.1]), NAMES
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="label_2 of KITTI as tar")
    parser.add_argument("--images", type=int, default=3769)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    labels = labels_of(args.archive, args.images)
    detections = [invent(objects, rng) for objects in labels]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for rules in ("paper", "current"):
        seconds = []
        for _ in range(args.runs):
            start = time.perf_counter()
            result = evaluate(labels, detections, rules)
            seconds.append(time.perf_counter() - start)
        print(f"{rules}: median {np.median(seconds):.2f} s, {result.counts}, mAP11 {result.map11:.4f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {peak / 1024:.0f} MB, of which before evaluation {before / 1024:.0f} MB")


if __name__ == "__main__":
    main()
