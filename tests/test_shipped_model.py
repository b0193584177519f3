"""What the shipped model is worth, on real images that it never learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import squeezedet
from squeezedet.data.kitti import read_folder
from squeezedet.data.sample import Sample
from squeezedet.detections import Detections
from squeezedet.evaluation.kitti import evaluate
from squeezedet.evaluation.recall import recall_at
from squeezedet.media.images import read_image

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def kitti(shared: Path) -> tuple[Sequence[Sample], list[Detections]]:
    """The 20 KITTI images of the validation split, and what is found in them."""
    val = read_folder(shared / "data" / "roads", "val")
    samples = [sample for sample in val if sample.id.startswith("kitti_")]
    assert len(samples) == 20
    detector = squeezedet.load("squeezedet")
    return samples, [detector.detect(read_image(s.image), score=0.0) for s in samples]


def test_cars_by_kittis_rules(kitti: tuple[Sequence[Sample], list[Detections]]) -> None:
    samples, found = kitti
    result = evaluate([s.objects for s in samples], found, "current").results["car"]
    assert result is not None
    assert result["moderate"].ap40 >= 0.45


@pytest.mark.parametrize(("name", "total", "least"), [("car", 74, 0.65), ("pedestrian", 13, 0.25)])
def test_recall(
    kitti: tuple[Sequence[Sample], list[Detections]], name: str, total: int, least: float
) -> None:
    """Of the objects above 25 px, so many are found at score 0.3 and IoU 0.5."""
    samples, found = kitti
    hits, objects = recall_at([s.objects for s in samples], found, name)
    assert objects == total
    assert hits / objects >= least
