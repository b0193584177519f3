"""The supplement's method on curves with known answers, and its Table 2."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from squeezedet.benchmark.power_log import INTERVAL_S, WorkingPeriod, working_period
from squeezedet.errors import SqueezeDetError

Curve = NDArray[np.float64]


def curve(*parts: tuple[float, float]) -> Curve:
    """Parts of (seconds, watts), a sample each 0.1 s."""
    return np.concatenate([np.full(round(s / INTERVAL_S), w) for s, w in parts])


def found(power_w: Curve, *, working_w: float = 20.0) -> WorkingPeriod:
    return working_period(np.arange(len(power_w)) * INTERVAL_S, power_w, working_w=working_w)


# ------------------------------------------------------------------ Table 2

# Watts, frames per second, joules per frame as printed.
TABLE_2 = {
    "SqueezeDet": (80.9, 57.2, "1.4"),
    "SqueezeDet x1.5": (89.9, 31.3, "2.9"),
    "SqueezeDet x0.75": (77.8, 92.5, "0.84"),
    "SqueezeDet, 16 anchors": (82.9, 51.4, "1.6"),
    "SqueezeDet+": (128.3, 32.1, "4.0"),
    "VGG16+ConvDet": (153.9, 16.6, "9.3"),
    "ResNet50+ConvDet": (95.4, 22.5, "4.2"),
    "Faster R-CNN, VGG16": (200.1, 1.7, "117.7"),
    "Faster R-CNN, AlexNet": (143.1, 2.9, "49.3"),
    "YOLO": (187.3, 25.8, "7.3"),
    "YOLO at the speed its authors report": (187.3, 45.0, "4.2"),
}


@pytest.mark.parametrize("name", TABLE_2)
def test_every_joule_figure_of_table_2(name: str) -> None:
    watts, frames_per_s, printed = TABLE_2[name]
    # a run as in the supplement's Fig. 1: 15 W, 3,741 images, 15 W
    period = found(curve((3, 15), (3741 / frames_per_s, watts), (3, 15)))
    digits = len(printed.partition(".")[2])
    assert f"{period.power_w / frames_per_s:.{digits}f}" == printed


# ------------------------------------------------------------------ known answers


def test_idle_work_idle() -> None:
    period = found(curve((5, 15), (60, 80.9), (5, 15)))
    assert period.power_w == pytest.approx(80.9)
    assert (period.samples, period.middle_samples, period.periods) == (600, 200, 1)
    assert period.start_s == pytest.approx(5.0) and period.duration_s == pytest.approx(60.0)
    assert period.idle_w == 15.0
    assert period.how == ("mean of the middle third (200 samples) of the working period, 60.0 s of at least 20 W")


def test_only_the_middle_third_counts() -> None:
    period = found(curve((2, 15), (10, 40), (10, 100), (10, 70), (2, 15)))
    assert period.power_w == pytest.approx(100.0) and period.middle_samples == 100


def test_a_ramp_has_its_middle_as_mean() -> None:
    assert found(np.linspace(20.0, 120.0, 301)).power_w == pytest.approx(70.0)


def test_exactly_the_threshold_is_work() -> None:
    assert found(curve((1, 19.99), (3, 20.0), (1, 19.99))).samples == 30


def test_no_idle_in_the_curve_is_said() -> None:
    period = found(curve((30, 75)))
    assert period.idle_w is None and period.duration_s == pytest.approx(30.0)
    assert period.how.endswith("; no sample outside, so idle is not told apart")


def test_spikes_while_idle_are_no_work() -> None:
    power = curve((10, 15), (30, 90), (10, 15))
    power[20], power[470] = 60.0, 200.0
    period = found(power)
    assert (period.power_w, period.samples, period.periods) == (pytest.approx(90.0), 300, 3)
    assert "the longest of 3 periods" in period.how


def test_a_spike_at_work_counts_as_measured() -> None:
    power = curve((10, 15), (30, 90), (10, 15))
    power[250] = 190.0  # one of the hundred in the middle
    assert found(power).power_w == pytest.approx(91.0)


def test_the_longest_of_several_bursts() -> None:
    warm_up, work, after = (4, 150), (30, 80), (20, 200)
    period = found(curve((2, 15), warm_up, (3, 15), work, (3, 15), after, (2, 15)))
    assert period.power_w == pytest.approx(80.0) and period.start_s == pytest.approx(9.0)
    assert period.duration_s == pytest.approx(30.0) and period.periods == 3
    assert period.idle_w == 15.0


def test_the_first_of_two_equal_bursts() -> None:
    period = found(curve((1, 15), (8, 50), (4, 15), (8, 60), (1, 15)))
    assert period.power_w == pytest.approx(50.0)


def test_short_dips_are_part_of_the_work() -> None:
    period = found(curve((1, 15), *[(2, 80), (1, 10)] * 9, (2, 80), (1, 15)))
    assert period.periods == 1 and period.duration_s == pytest.approx(29.0)
    # 290 samples: the middle third is 97 to 192, of which 110 to 119, 140 to 149, 170 to 179 dip
    assert period.power_w == pytest.approx((66 * 80 + 30 * 10) / 96)
    longer = found(curve((1, 15), (9, 80), (1.1, 10), (8, 80), (1, 15)))
    assert longer.periods == 2 and longer.duration_s == pytest.approx(9.0)


def test_noise_averages_out() -> None:
    power = curve((5, 15), (60, 80.9), (5, 15))
    power += np.random.default_rng(7).normal(0, 1.5, len(power))
    period = found(power)
    assert period.power_w == pytest.approx(80.9, abs=4 * 1.5 / 200**0.5)
    assert period.samples == 600 and period.idle_w == pytest.approx(15, abs=1)


def test_uneven_samples_weigh_by_their_time() -> None:
    times = [0.0, 3.0, 6.0, 9.0, 9.5, 10.0, 10.5, 11.0, 12.0, 15.0, 18.0, 21.0]
    power = [30.0, 30.0, 30.0, *[60.0] * 5, 60.0, 30.0, 30.0, 30.0]
    assert working_period(times, power).power_w == pytest.approx(60.0)
    finer_later = [*np.arange(0, 15, 0.1), *np.arange(15, 30.01, 0.05)]
    steps = np.where(np.array(finer_later) < 15, 40.0, 80.0)
    assert working_period(finer_later, steps).power_w == pytest.approx(60.0, rel=0.01)


def test_a_time_without_samples_ends_the_period() -> None:
    times = [*np.arange(0, 10, 0.1), *np.arange(100, 130, 0.1)]
    period = working_period(times, [50.0] * 100 + [70.0] * 300)
    assert period.power_w == pytest.approx(70.0) and period.duration_s == pytest.approx(30.0)
    assert period.start_s == 100.0 and period.periods == 2


def test_samples_every_two_seconds_are_one_period() -> None:
    times = np.arange(0, 120, 2.0)
    assert working_period(times, np.full(60, 50.0)).duration_s == pytest.approx(120.0)


def test_another_threshold() -> None:
    power = curve((3, 2), (9, 8), (3, 2))
    with pytest.raises(SqueezeDetError, match=r"no power sample reaches 20 W .*150 has 8\.0 W"):
        found(power)
    period = found(power, working_w=5.0)
    assert period.power_w == pytest.approx(8.0) and "at least 5 W" in period.how


@pytest.mark.parametrize("samples", [1, 2])
def test_too_few_samples(samples: int) -> None:
    with pytest.raises(SqueezeDetError, match=rf"too few power samples \({samples}\)"):
        found(curve((1, 15), (samples * INTERVAL_S, 80), (1, 15)))
    assert found(curve((1, 15), (0.3, 80), (1, 15))).middle_samples == 1


def test_what_is_no_curve() -> None:
    with pytest.raises(SqueezeDetError, match="no working period"):
        working_period([], [])
    for times, power in (([0.0, 0.0], [50.0, 50.0]), ([0.0, 1.0], [50.0]), ([[0.0]], [[50.0]])):
        with pytest.raises(ValueError):
            working_period(times, power)


# ------------------------------------------------------------------ properties

POWERS = st.lists(st.floats(20, 400), min_size=3, max_size=80)


@given(POWERS, st.integers(11, 30), st.integers(11, 30), st.floats(-1e6, 1e6))
def test_idle_around_and_the_hour_do_not_matter(work: list[float], before: int, after: int, start_s: float) -> None:
    alone = found(np.array(work))
    power = np.array([15.0] * before + work + [15.0] * after)
    period = working_period(start_s + np.arange(len(power)) * INTERVAL_S, power)
    assert period.power_w == pytest.approx(alone.power_w, rel=1e-6)
    assert period.duration_s == pytest.approx(len(work) * INTERVAL_S, abs=1e-6)
    assert period.start_s == pytest.approx(start_s + before * INTERVAL_S)


@given(POWERS)
def test_the_mean_is_the_plain_mean_of_the_middle_third(work: list[float]) -> None:
    steps = len(work) - 1
    middle = [w for i, w in enumerate(work) if steps <= 3 * i <= 2 * steps]
    period = found(np.array(work))
    assert period.middle_samples == len(middle)
    assert period.power_w == pytest.approx(np.mean(middle))
