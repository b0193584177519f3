"""Which layers suffer, and the choice of those that stay float."""

from __future__ import annotations

from pathlib import Path

import pytest

from squeezedet.exporting.int8 import Scan, scan
from squeezedet.runtime.bundle import Bundle


def test_scan_measures_every_layer(small: Bundle, pictures: list[Path]) -> None:
    found = scan(small, pictures)
    assert list(found.alone) == ["conv1", "fire.squeeze", "fire.expand1", "fire.expand3", "head"]
    assert all(0 < error < found.together for error in found.alone.values())
    assert found.together < 0.2
    # The errors of layers are independent, more or less.
    apart = sum(error**2 for error in found.alone.values()) ** 0.5
    assert apart == pytest.approx(found.together, rel=0.5)


def test_table_has_the_worst_first() -> None:
    text = str(Scan({"a": 0.01, "b": 0.03, "c": 0.0}, 0.04))
    lines = [line.split() for line in text.splitlines()]
    assert lines[1:] == [["b", "0.0300", "90%"], ["a", "0.0100", "10%"], ["c", "0.0000", "0%"], ["all", "0.0400"]]


@pytest.mark.parametrize(("limit", "kept"), [(0.06, set()), (0.04, {"c"}), (0.02, {"b", "c"}), (1e-9, {"b", "c"})])
def test_the_fewest_layers_for_a_limit(limit: float, kept: set[str]) -> None:
    errors = {"c": 0.04, "a": 0.01, "b": 0.03}  # 0.051 together: squares add up
    assert set(Scan(errors, 0.051).worst(limit)) == kept


def test_layers_that_are_worse_together_are_scaled() -> None:
    assert Scan({"a": 0.03, "b": 0.04}, 0.1).worst(0.07) == ("b",)
    assert Scan({"a": 0.03, "b": 0.04}, 0.05).worst(0.07) == ()


def test_no_error_keeps_nothing() -> None:
    assert Scan({"a": 0.0}, 0.0).worst(0.1) == ()
