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
    ground_truth: Sequence[Objects], detections: Sequence[Detections], name: str, score: float = 0.2
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


def moderate(model: str, samples: Sequence[Sample]) -> list[float]:
    """AP40 at moderate of car, pedestrian and cyclist, by the current rules, in points."""
    detector = squeezedet.load(model)
    found = [detector.detect(read_image(s.image), score=0.0) for s in samples]
    ap = evaluate([s.objects for s in samples], found, "current").ap
    return [100 * (ap[name] or 0) for name in ("car", "pedestrian", "cyclist")]


@pytest.mark.parametrize(
    ("data", "images", "wanted"),
    [("streets", 161, (78.3, 61.3, 72.0)), ("roads", 50, (70.6, 15.6, 4.1))],  # docs/models.md
)
def test_what_the_default_model_finds(shared: Path, data: str, images: int, wanted: Sequence[float]) -> None:
    """Within a point of what the page says; of streets the images of KITTI."""
    samples = read_split(shared / "data" / data, "val")
    samples = [s for s in samples if data == "roads" or s.id.startswith("kitti")]
    assert len(samples) == images
    assert moderate("street", samples) == pytest.approx(wanted, abs=1)


@pytest.mark.parametrize(("name", "total", "least"), [("car", 74, 67), ("pedestrian", 13, 6)])
def test_recall(kitti: tuple[Sequence[Sample], list[Detections]], name: str, total: int, least: int) -> None:
    """Of the objects above 25 px, so many are found at score 0.2 and IoU 0.5; 0.4 has the best F1."""
    samples, found = kitti
    hits, objects = recall_at([s.objects for s in samples], found, name)
    assert objects == total
    assert hits >= least


@pytest.mark.slow
@pytest.mark.parametrize("model", ["street", "street-ssd"])
def test_every_model_is_as_good_as_its_card_says(model: str, shared: Path) -> None:
    card = bundle.read_card(bundle.find(model)).results["results"]
    wanted = [100 * card[name]["moderate"]["ap40"] for name in ("car", "pedestrian", "cyclist")]
    assert moderate(model, read_split(shared / "data" / "streets", "val")) == pytest.approx(wanted, abs=1)


@pytest.mark.slow
def test_what_int8_costs(shared: Path) -> None:
    """At most a point, in the mean of the classes, against the float network that it was made of."""
    samples = [s for s in read_split(shared / "data" / "streets", "val") if s.id.startswith("kitti")]
    parent = PARENTS / "squeezedet-two-scale.bundle"
    assert np.mean(moderate("street", samples)) >= np.mean(moderate(str(parent), samples)) - 1


def test_sizes() -> None:
    megabytes = {name: path.stat().st_size / 1e6 for name, path in bundle.shipped().items()}
    assert set(megabytes) == {"street", "street-ssd"}
    assert megabytes["street"] <= 0.8
    assert megabytes["street-ssd"] <= 0.75
