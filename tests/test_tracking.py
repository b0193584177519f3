from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from squeezedet.detections import Detections
from squeezedet.tracking import POSITION, VELOCITY, Motion, Tracker, TrackerConfig, match

NAMES = ("car", "pedestrian", "cyclist")
Box = tuple[float, float, float, float]


def found(boxes: Iterable[Box], score: float | list[float] = 0.9, class_id: int | list[int] = 0) -> Detections:
    xyxy = np.array(list(boxes), np.float32).reshape(-1, 4)
    n = len(xyxy)
    return Detections(
        xyxy,
        np.broadcast_to(np.asarray(score, np.float32), n).copy(),
        np.broadcast_to(np.asarray(class_id, np.int64), n).copy(),
        NAMES,
        image="a.mp4",
        time_s=1.5,
    )


def car(x: float, y: float = 100, width: float = 60, height: float = 40) -> Box:
    return (x, y, x + width, y + height)


def ids(tracker: Tracker, detections: Detections) -> list[int]:
    track_id = tracker.update(detections).track_id
    assert track_id is not None
    return track_id.tolist()


def test_first_frame_is_told_and_ids_stay() -> None:
    tracker = Tracker()
    for frame in range(20):
        boxes = [car(100 + 8 * frame), car(400 - 5 * frame), car(700, 100 + frame)]
        order = np.roll([0, 1, 2], frame)
        told = ids(tracker, found([boxes[i] for i in order]))
        assert told == [int(i) + 1 for i in order]


def test_what_is_known_of_the_frame_stays() -> None:
    told = Tracker().update(found([car(1)]))
    assert (told.image, told.time_s, told[0].track_id, told[0].name) == ("a.mp4", 1.5, 1, "car")


def test_a_box_that_shows_up_once_is_never_told() -> None:
    tracker = Tracker()
    assert ids(tracker, found([car(100)])) == [1]
    assert ids(tracker, found([car(100), car(500)])) == [1]
    assert ids(tracker, found([car(100)])) == [1]
    assert ids(tracker, found([car(100), car(500)])) == [1]  # begins again
    assert ids(tracker, found([car(100), car(503)])) == [1, 2]


def test_a_gap_is_bridged_where_the_object_is_expected() -> None:
    tracker = Tracker()
    for frame in range(10):
        ids(tracker, found([car(100 + 10 * frame)]))
    for _ in range(5):
        assert ids(tracker, found([])) == []
    assert ids(tracker, found([car(250)])) == [1]


def test_patience_ends() -> None:
    tracker = Tracker(TrackerConfig(patience=3))
    ids(tracker, found([car(100)]))
    for _ in range(4):
        ids(tracker, found([]))
    assert ids(tracker, found([car(100)])) == []
    assert ids(tracker, found([car(100)])) == [2]


def test_crossing_cars_keep_their_ids() -> None:
    tracker = Tracker()
    for frame in range(40):
        right, left = car(50 + 10 * frame, 100), car(450 - 10 * frame, 112)
        assert ids(tracker, found([right, left])) == [1, 2]


def test_one_behind_the_other_comes_out_with_its_id() -> None:
    tracker = Tracker()
    for frame in range(40):
        front, behind = car(50 + 10 * frame, 100, 90, 60), car(450 - 10 * frame, 112, 50, 40)
        hidden = front[0] < behind[0] + 10 and behind[2] - 10 < front[2]
        boxes, wanted = ([front], [1]) if hidden else ([front, behind], [1, 2])
        assert ids(tracker, found(boxes)) == wanted


def test_unsure_boxes_continue_a_track_and_begin_none() -> None:
    tracker = Tracker()
    assert ids(tracker, found([car(100), car(300)], [0.9, 0.2])) == [1]
    for _ in range(3):
        assert ids(tracker, found([car(101), car(300)], [0.2, 0.2])) == [1]
    assert ids(tracker, found([car(101)], 0.05)) == []
    assert ids(tracker, found([car(101)], 0.2)) == []  # one that was lost needs a sure box


def test_sure_boxes_come_first() -> None:
    tracker = Tracker()
    ids(tracker, found([car(100)]))
    told = tracker.update(found([car(110), car(100)], [0.5, 0.3]))
    assert told.xyxy[:, 0].tolist() == [110]


def test_classes_are_apart() -> None:
    tracker = Tracker()
    assert ids(tracker, found([car(100), car(100)], 0.9, [0, 1])) == [1, 2]
    assert ids(tracker, found([car(100), car(100)], 0.9, [1, 0])) == [2, 1]
    assert ids(tracker, found([car(100)], 0.9, 2)) == []


@pytest.mark.parametrize("wrong", [{"low": 0.5}, {"high": 1.5}, {"iou": 0.0}, {"low_iou": 2}, {"patience": -1}])
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        TrackerConfig(**wrong)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0, 0.3))
def test_noisy_cars_on_lanes_of_their_own(seed: int, cars: int, missed: float) -> None:
    """Noise of 2 %, changing scores, boxes that are missed: one id for each car all the same."""
    rng = np.random.default_rng(seed)
    speed, start = rng.uniform(-12, 12, cars), rng.uniform(200, 800, cars)
    tracker = Tracker()
    owners: dict[int, set[int]] = {}
    for frame in range(40):
        seen = [i for i in range(cars) if frame < 3 or rng.random() >= missed]
        boxes = [car(start[i] + speed[i] * frame, 60 * i) for i in seen]
        noise = rng.normal(0, 1.0, (len(seen), 4))
        moved = found([tuple(b) for b in np.array(boxes).reshape(-1, 4) + noise])
        moved.score[:] = rng.uniform(0.4, 1, len(seen))
        told = tracker.update(moved)
        for box in told:
            middle = (box.xyxy[1] + box.xyxy[3]) / 2
            owners.setdefault(round((middle - 20) / 60), set()).add(box.track_id or 0)
    assert sorted(owners) == list(range(cars))
    assert all(len(track_ids) == 1 for track_ids in owners.values())


BOXES = st.lists(
    st.tuples(st.floats(-50, 500), st.floats(-50, 300), st.floats(0, 300), st.floats(0, 300)).map(
        lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
    ),
    max_size=8,
)


@given(st.lists(st.tuples(BOXES, st.integers(0, 2**32 - 1)), min_size=1, max_size=8))
def test_anything_goes_in_and_a_choice_comes_out(frames: list[tuple[list[Box], int]]) -> None:
    tracker = Tracker()
    highest = 0
    for boxes, seed in frames:
        rng = np.random.default_rng(seed)
        n = len(boxes)
        given_boxes = found(boxes, list(rng.random(n)), list(rng.integers(0, 3, n)))
        told = tracker.update(given_boxes)
        assert told.track_id is not None
        track_ids = told.track_id.tolist()
        assert len(set(track_ids)) == len(track_ids)
        assert all(i >= 1 for i in track_ids)
        assert (told.score >= np.float32(0.1)).all()
        rows = [row.tolist() for row in given_boxes.xyxy]
        assert all(row.tolist() in rows for row in told.xyxy)
        new = [i for i in track_ids if i > highest]
        assert sorted(new) == list(range(highest + 1, highest + 1 + len(new)))
        highest += len(new)


@pytest.mark.slow
def test_a_busy_street_takes_little_time() -> None:
    tracker = Tracker()
    rng = np.random.default_rng(0)
    start, speed = rng.uniform(0, 1200, 20), rng.uniform(-8, 8, 20)
    times = []
    for frame in range(60):
        boxes = [car(start[i] + speed[i] * frame, 18 * i) for i in range(20)]
        detections = found(boxes, list(rng.uniform(0.2, 1, 20)))
        begin = time.perf_counter()
        tracker.update(detections)
        times.append(time.perf_counter() - begin)
    assert np.min(times[10:]) < 0.001


@pytest.mark.slow
@pytest.mark.shared
def test_a_real_street(shared: Path) -> None:
    """78 frames of KITTI: the car ahead keeps its id from the first frame to the last."""
    from squeezedet.media.images import read_image
    from squeezedet.runtime.detector import load

    detector, tracker = load(threads=1), Tracker()
    paths = sorted((shared / "data" / "sequence").glob("*.jpg"))
    every: set[int] = set()
    ahead, seen = 0, 0
    for path in paths:
        told = tracker.update(detector.detect(read_image(path), tracker.config.low))
        boxes = {box.track_id or 0: box.xyxy for box in told}
        every |= boxes.keys()
        inside = [number for number, box in boxes.items() if box[0] < 630 < box[2] and box[1] < 250 < box[3]]
        ahead = ahead or inside[0]
        seen += ahead in inside
    assert len(paths) == 78
    assert seen >= 70
    assert len(every) <= 45  # 20 with the model of November 2026


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


OVERLAPS = st.tuples(st.integers(0, 6), st.integers(0, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(0, 1))
)


def test_largest_first() -> None:
    rows, columns = match(np.array([[0.9, 0.8], [0.7, 0.1]]), 0.2)
    assert (rows.tolist(), columns.tolist()) == ([0], [0])
    rows, columns = match(np.array([[0.6, 0.8], [0.7, 0.1]]), 0.2)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


@given(OVERLAPS, st.floats(0.01, 1))
def test_pairs_are_single_good_and_all_that_are_possible(overlap: np.ndarray, least: float) -> None:
    rows, columns = match(overlap, least)
    assert len(set(rows.tolist())) == len(rows) == len(columns) == len(set(columns.tolist()))
    assert (overlap[rows, columns] >= least).all()
    rest = np.delete(np.delete(overlap, rows, axis=0), columns, axis=1)
    assert not (rest >= least).any()
