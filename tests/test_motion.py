from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.tracking import POSITION, VELOCITY, Motion

BOX = np.array([[100.0, 100.0, 140.0, 130.0]])
ROW = np.array([0])


def test_matches_a_kalman_filter_of_matrices() -> None:
    """One coordinate of the textbook's filter, with F, Q and R written out."""
    step, observe = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    state = np.array([120.0, 0.0])
    covariance = np.diag([(2 * POSITION * 40) ** 2, (10 * VELOCITY * 40) ** 2])
    motion = Motion.start(BOX)
    for move in (0.0, 7.0, 11.0, 15.0):
        width = motion.place[0, 2]
        noise = np.diag([(POSITION * width) ** 2, (VELOCITY * width) ** 2])
        state, covariance = step @ state, step @ covariance @ step.T + noise
        motion = motion.step()
        spread = (POSITION * motion.place[0, 2]) ** 2
        gain = covariance @ observe.T / (observe @ covariance @ observe.T + spread)
        state = state + (gain * (120 + move - state[0])).ravel()
        covariance = (np.eye(2) - gain @ observe) @ covariance
        motion = motion.correct(ROW, BOX + np.array([move, 0, move, 0]))
        found = [motion.place[0, 0], motion.velocity[0, 0]]
        assert found == pytest.approx(state)
        variances = [motion.place_var[0, 0], motion.covariance[0, 0], motion.velocity_var[0, 0]]
        assert variances == pytest.approx([covariance[0, 0], covariance[0, 1], covariance[1, 1]])


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-0.5, 2))
def test_learns_a_constant_velocity(dx: float, dy: float, grow: float) -> None:
    motion = Motion.start(BOX)
    move = np.array([dx - grow, dy - grow, dx + grow, dy + grow])
    for frame in range(1, 20):
        motion = motion.step().correct(ROW, BOX + frame * move)
    assert np.abs(motion.step().xyxy - (BOX + 20 * move)).max() < 2


def test_boxes_never_vanish() -> None:
    motion = Motion.start(BOX)
    for frame in range(1, 12):
        motion = motion.step().correct(ROW, BOX + frame * np.array([1.5, 1.0, -1.5, -1.0]))
    for _ in range(100):
        motion = motion.step()
    assert (motion.place[:, 2:] >= 1).all()


def test_the_others_stay_as_they_are() -> None:
    motion = Motion.start(np.concatenate([BOX, BOX + 50])).step()
    moved = motion.correct(ROW, BOX + 5)
    assert np.array_equal(moved.xyxy[1], motion.xyxy[1])
    assert not np.array_equal(moved.xyxy[0], motion.xyxy[0])
    assert len(motion[np.array([False, True])] + motion) == 3
