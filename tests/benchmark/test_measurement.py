"""The block that is measured, and the thread beside it."""

from __future__ import annotations

import time

import pytest

from squeezedet.benchmark.meter import Measurement, NoMeter, Sampler
from squeezedet.errors import UsageError


def test_a_reading_only_after_the_block() -> None:
    with NoMeter().measure() as measurement, pytest.raises(RuntimeError, match="after its block"):
        measurement.reading(frames=1)
    assert measurement.reading(frames=1).frames == 1


def test_no_reading_of_a_block_that_failed() -> None:
    seen: list[Measurement] = []
    with pytest.raises(KeyError), NoMeter().measure() as measurement:
        seen.append(measurement)
        raise KeyError("the block's own")
    with pytest.raises(RuntimeError, match="ended well"):
        seen[0].reading(frames=1)


def test_a_reading_is_of_frames() -> None:
    with NoMeter().measure() as measurement:
        pass
    with pytest.raises(UsageError, match="1 at least, not 0"):
        measurement.reading(frames=0)


@pytest.mark.slow
def test_samples_at_even_times_that_do_not_add_up() -> None:
    times_s: list[float] = []

    def slow(time_s: float) -> None:
        times_s.append(time_s)
        time.sleep(0.005)

    with Sampler(0.02, slow) as sampler:
        time.sleep(0.3)
    sampler.check()
    assert sampler.duration_s >= 0.3
    assert len(times_s) >= 3
    # a busy machine may be late and may miss some, but no turn comes early or twice
    turns = [int((time_s + 0.001) / 0.02) for time_s in times_s]
    assert turns == sorted(set(turns)) and len(times_s) <= 2 + sampler.duration_s / 0.02


def test_what_the_thread_raises_is_raised_by_check() -> None:
    def fail(time_s: float) -> None:
        raise OSError("the sensor is gone")

    with Sampler(0.01, fail) as sampler:
        pass
    with pytest.raises(OSError, match="the sensor is gone"):
        sampler.check()


def test_a_long_interval_does_not_hold_up_the_block() -> None:
    taken: list[float] = []
    with Sampler(60.0, taken.append) as sampler:
        pass
    assert sampler.duration_s < 10 and len(taken) == 1
