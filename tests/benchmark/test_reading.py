"""A number never stands without its source and its idle power."""

from __future__ import annotations

import json
from typing import Any

import pytest

from squeezedet.benchmark.meter import EnergyReading
from squeezedet.errors import SqueezeDetError


def reading(**changes: Any) -> EnergyReading:
    facts: dict[str, Any] = {
        "source": "a bench supply",
        "how": "read off",
        "frames": 50,
        "duration_s": 2.0,
        "energy_j": 100.0,
    }
    return EnergyReading(**{**facts, **changes})


def test_watts_frames_and_joules() -> None:
    found = reading()
    assert (found.power_w, found.frames_per_s, found.energy_per_frame_j) == (50.0, 25.0, 2.0)
    assert found.cpu_per_frame_s is None
    assert str(found) == ("2 J per frame (a bench supply; idle power not measured, not subtracted; read off)")


def test_idle_is_subtracted_once_and_said() -> None:
    found = reading(idle_w=10.0)
    assert found.idle == "idle power of 10.0 W not subtracted"
    less = found.less_idle(10.0)
    assert (less.energy_j, less.power_w, less.energy_per_frame_j) == (80.0, 40.0, 1.6)
    assert less.idle == "idle power of 10.0 W subtracted" and less.idle in str(less)
    with pytest.raises(ValueError, match="nothing to subtract from"):
        less.less_idle(1.0)


def test_an_idle_power_above_the_mean_is_refused() -> None:
    assert reading().less_idle(50.0).energy_j == 0.0
    with pytest.raises(SqueezeDetError, match=r"idle power of 50\.1 W is above.*50\.0 W"):
        reading().less_idle(50.1)


def test_without_energy_there_are_only_processor_seconds() -> None:
    found = reading(energy_j=None, cpu_s=5.0)
    assert found.power_w is None and found.energy_per_frame_j is None
    assert str(found).startswith("0.1 CPU seconds per frame (a bench supply; no energy")
    with pytest.raises(ValueError, match="nothing to subtract from"):
        found.less_idle(1.0)


def test_the_record_holds_every_figure() -> None:
    record = json.loads(json.dumps(reading(cpu_s=1.0).less_idle(5.0).record()))
    assert record == {
        "source": "a bench supply",
        "how": "read off",
        "frames": 50,
        "duration_s": 2.0,
        "energy_j": 90.0,
        "idle_w": 5.0,
        "idle_subtracted": True,
        "cpu_s": 1.0,
        "power_w": 45.0,
        "frames_per_s": 25.0,
        "energy_per_frame_j": 1.8,
        "cpu_per_frame_s": 0.02,
        "idle": "idle power of 5.0 W subtracted",
    }


@pytest.mark.parametrize(
    "wrong",
    [{"frames": 0}, {"duration_s": 0.0}, {"energy_j": float("nan")}, {"energy_j": -1.0}, {"idle_w": float("inf")}],
)
def test_what_is_no_measurement(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        reading(**wrong)
