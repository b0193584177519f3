"""How good the shipped models are, on real images that they never learned from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import squeezedet
from squeezedet.data.dataset import read_split
from squeezedet.data.sample import Objects, Sample
from squeezedet.detections import Detections
from squeezedet.evaluation.kitti import evaluate
from squeezedet.evaluation.matching import concatenate, overlapping
from squeezedet.media.images import read_image
from squeezedet.runtime import bundle

PARENTS = Path(__file__).resolve().parents[1] / "parents"

pytestmark = pytest.mark.shared


def recall_at(
    ground_truth: Sequence[Objects], detections: Sequence[Detections], name: str, score: float = 0.3
) -> tuple[int, int]:
    """How many labelled boxes of a class above 25 px are found at one score, IoU 0.5, one to one; and of how many.

    By falling score, each detection takes the labelled box of the largest IoU that none took before; lower boxes can be
    taken too, so that a detection of one is not lent to its neighbor, but do not count.
    """
    flat = concatenate(ground_truth, detections)
    of_class = flat.gt_type == name
    counts = of_class & (flat.gt_xyxy[:, 3] - flat.gt_xyxy[:, 1] > 25)
    # A score of 0.7 is 0.69999999 as float32; so is the limit.
    usable = (flat.det_type == name) & (flat.det_score >= np.float32(score))
    det, gt, overlap = overlapping(flat.det_xyxy, flat.det_count, flat.gt_xyxy, flat.gt_count, above=0.5)
    keep = usable[det] & of_class[gt]
    det, gt, overlap = det[keep], gt[keep], overlap[keep]
    used: set[int] = set()
    taken: set[int] = set()
    for k in np.lexsort((-overlap, det, -flat.det_score[det])).tolist():
        if det[k] not in used and gt[k] not in taken:
            used.add(int(det[k]))
            taken.add(int(gt[k]))
    return int(counts[sorted(taken)].sum()), int(counts.sum())


@pytest.fixture(scope="module")
def kitti(shared: Path) -> tuple[Sequence[Sample], list[Detections]]:
    """The 20 KITTI images of the validation split, and what is found in them."""
    val = read_split(shared / "data" / "roads", "val")
    samples = [sample for sample in val if sample.id.startswith("kitti_")]
    assert len(samples) == 20
    detector = squeezedet.load("street")
    return samples, [detector.detect(read_image(s.image), score=0.0) for s in samples]


def test_cars_by_kittis_rules(kitti: tuple[Sequence[Sample], list[Detections]]) -> None:
    samples, found = kitti
    result = evaluate([s.objects for s in samples], found, "current").results["car"]
    assert result is not None
    assert result["moderate"].ap40 >= 0.81  # docs/models.md: 82.6


@pytest.mark.parametrize(("name", "total", "least"), [("car", 74, 67), ("pedestrian", 13, 6)])
def test_recall(kitti: tuple[Sequence[Sample], list[Detections]], name: str, total: int, least: int) -> None:
    """Of the objects above 25 px, so many are found at score 0.3 and IoU 0.5 (69 and 7)."""
    samples, found = kitti
    hits, objects = recall_at([s.objects for s in samples], found, name)
    assert objects == total
    assert hits >= least


@pytest.fixture(scope="module")
def val(shared: Path) -> Sequence[Sample]:
    return read_split(shared / "data" / "roads", "val")


def cars_and_people(model: str, samples: Sequence[Sample]) -> tuple[float, float]:
    """AP40 at moderate, by the current rules, in points."""
    detector = squeezedet.load(model)
    found = [detector.detect(read_image(s.image), score=0.0) for s in samples]
    results = evaluate([s.objects for s in samples], found, "current").results
    car, person = results["car"], results["pedestrian"]
    assert car is not None
    assert person is not None
    return 100 * car["moderate"].ap40, 100 * person["moderate"].ap40


@pytest.mark.slow
@pytest.mark.parametrize("model", ["street", "street-int8", "street-ssd"])
def test_every_model_is_as_good_as_its_card_says(model: str, val: Sequence[Sample]) -> None:
    cars, people = cars_and_people(model, val)
    card = bundle.read_card(bundle.find(model)).results["results"]
    assert cars == pytest.approx(100 * card["car"]["moderate"]["ap40"], abs=1)
    assert people == pytest.approx(100 * card["pedestrian"]["moderate"]["ap40"], abs=1)


@pytest.fixture(scope="module")
def parents(val: Sequence[Sample]) -> dict[str, float]:
    """Mean of both classes of each float network."""
    return {path.stem: sum(cars_and_people(str(path), val)) / 2 for path in PARENTS.glob("*.bundle")}


@pytest.mark.slow
@pytest.mark.parametrize(("model", "parent"), [("street", "squeezedet-slim-last"), ("street-int8", "squeezedet-slim")])
def test_what_compression_costs(model: str, parent: str, parents: dict[str, float], val: Sequence[Sample]) -> None:
    """At most a point against the float network that it was made of, two against the wide one."""
    mean = sum(cars_and_people(model, val)) / 2
    assert mean >= parents[parent] - 1
    assert mean >= parents["squeezedet-full"] - 2


def test_sizes() -> None:
    megabytes = {name: path.stat().st_size / 1e6 for name, path in bundle.shipped().items()}
    assert set(megabytes) == {"street", "street-int8", "street-ssd"}
    assert megabytes["street"] <= 0.7
    assert megabytes["street-ssd"] <= 0.72
    assert megabytes["street-int8"] <= 1.1
