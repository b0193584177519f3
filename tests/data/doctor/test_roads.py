"""The development data: what is known of them is what the doctor finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from squeezedet.data.doctor import examine
from squeezedet.preprocess import InputRule

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def test_roads(shared: Path) -> None:
    findings = {f.check: f for f in examine(shared / "data" / "roads", InputRule(1248, 384)).findings}
    assert not [f for f in findings.values() if f.level.value == "error"]
    # A standing camera: the same two places, other people.
    pairs = {str(place).rsplit(" ", 1)[0] for place in findings["near-leak"].where}
    assert pairs == {
        "train/kitti_000000 ~ val/kitti_000070",
        "train/kitti_000028 ~ val/kitti_000070",
        "train/kitti_000054 ~ val/kitti_000070",
        "train/kitti_006121 ~ val/kitti_000074",
    }
    assert findings["small"].count == 2
    assert "classes" in findings  # what becomes of vans, trucks, trams
