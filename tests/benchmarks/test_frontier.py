"""Points of the frontier: smaller inputs are faster, and judged as what they are."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from frontier import measure, scaled, table
from squeezedet.data.scenes import write_folder
from squeezedet.preprocess import InputRule


def test_a_scaled_rule_stays_a_multiple_of_16() -> None:
    assert scaled(InputRule(1248, 384), 0.75) == InputRule(928, 288)
    assert scaled(InputRule(300, 300, fixed=True), 0.1) == InputRule(32, 32, fixed=True)


def test_a_smaller_input_is_faster(tmp_path: Path) -> None:
    write_folder(tmp_path, count=2, seed=5, width=640, height=192, val_fraction=0.5)
    small, large = measure(
        Namespace(data=tmp_path, split="val", model=["street"], scale=[0.25, 1.0], engine=None, threads=1, rounds=3)
    )
    assert (small.name, small.size) == ("street x0.25", (320, 96))
    assert small.network_ms * 3 < large.network_ms
    assert 0 <= large.mean_ap <= 100
    lines = table([small, large]).splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["x1", "x0.25"]


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_budgets_scale_with_the_square(scale: float) -> None:
    rule = scaled(InputRule(1248, 384), scale)
    assert rule.width * rule.height == pytest.approx(1248 * 384 * scale**2, rel=0.05)
