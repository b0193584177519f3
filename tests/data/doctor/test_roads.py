"""The development data: what is known of them is what the doctor finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from squeezedet.data.doctor.checks import examine
from squeezedet.preprocess import InputRule

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def test_roads(shared: Path) -> None:
    diagnosis = examine(shared / "data" / "roads", InputRule(1248, 384))
    findings = {f.check: f for f in diagnosis.findings if f.check != "classes"}
    assert {check: (f.level.value, f.count) for check, f in findings.items()} == {
        "imbalance": ("warning", 1),
        "near-leak": ("warning", 4),
        "long": ("note", 1),
        "small": ("note", 2),
    }
    # A standing camera: the same two places, other people.
    pairs = {str(place).rsplit(" ", 1)[0] for place in findings["near-leak"].where}
    assert pairs == {
        "train/kitti_000000 ~ val/kitti_000070",
        "train/kitti_000028 ~ val/kitti_000070",
        "train/kitti_000054 ~ val/kitti_000070",
        "train/kitti_006121 ~ val/kitti_000074",
    }
    # 419 boxes are background.
    fates = [f.sentence.split(";")[0] for f in diagnosis.findings if f.check == "classes"]
    assert fates == [
        "'Truck' is no class: 330 objects learned as background",
        "'Van' is learned as 'car' (208 objects)",
        "'Misc' is no class: 89 objects learned as background",
    ]
