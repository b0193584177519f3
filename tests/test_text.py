from __future__ import annotations

import numpy as np

from squeezedet.detections import Detections
from squeezedet.media.images import FrameTime
from squeezedet.media.summary import describe, describe_timing, describe_video
from squeezedet.text import align

STAGES = ("load", "preprocess", "network", "postprocess")


def test_columns() -> None:
    assert align([("a", "1", "x"), ("bcd", "22.5", "")], left=(0, 2), indent=" ") == (
        " a       1  x\n bcd  22.5"
    )


def test_image_with_boxes() -> None:
    found = Detections(
        np.array([[1, 2, 1003.25, 40], [5, 6, 7, 8], [0, 0, 1, 1]], np.float32),
        np.array([0.97, 0.5, 0.4], np.float32),
        np.array([1, 0, 1]),
        ("car", "pedestrian"),
        image="street.jpg",
        width=1242,
        height=375,
    )
    assert describe(found).splitlines() == [
        "street.jpg  1242x375  car 1, pedestrian 2",
        "  class       score   x1   y1      x2    y2",
        "  pedestrian   0.97  1.0  2.0  1003.2  40.0",
        "  car          0.50  5.0  6.0     7.0   8.0",
        "  pedestrian   0.40  0.0  0.0     1.0   1.0",
    ]


def test_image_without_boxes() -> None:
    found = Detections.empty(("car",), image="a.jpg", width=3, height=2)
    assert describe(found) == "a.jpg  3x2  no boxes"


def test_timing_is_the_median() -> None:
    timings = [
        dict(zip(STAGES, ms, strict=True)) for ms in ((9, 1, 50, 1), (1, 2, 100, 3), (2, 9, 70, 2))
    ]
    assert describe_timing(timings).splitlines() == [
        "median of 3 images",
        "  load          2.00 ms",
        "  preprocess    2.00 ms",
        "  network      70.00 ms",
        "  postprocess   2.00 ms",
        "  (preprocess + postprocess) / network: 5.7%",
    ]


def test_frame_of_a_video_is_one_line() -> None:
    found = Detections(
        np.array([[1, 2, 3, 4]], np.float32),
        np.array([0.97], np.float32),
        np.array([0]),
        ("car",),
        image="a.mp4",
        width=9,
        height=8,
        time_s=2.04,
    )
    assert describe(found) == "a.mp4  2.040 s  9x8  car 1"


def test_tracks_have_a_column() -> None:
    found = Detections(
        np.array([[1, 2, 3, 4]], np.float32),
        np.array([0.97], np.float32),
        np.array([0]),
        ("car",),
        image="a.jpg",
        track_id=np.array([12]),
    )
    assert describe(found).splitlines()[1:] == [
        "  class  score   x1   y1   x2   y2  track",
        "  car     0.97  1.0  2.0  3.0  4.0     12",
    ]


def test_end_of_a_video() -> None:
    assert describe_video("a.mp4", FrameTime(0, 0)) == "a.mp4: 1 frame of 0.0 s"
    assert describe_video("a.mp4", FrameTime(7.72, 77, damaged=2)) == (
        "a.mp4: 78 frames of 7.7 s, 2 damaged"
    )
    assert describe_video("cam", FrameTime(60.04, 1799, 1000)) == (
        "cam: 800 frames of 60.0 s, 1000 dropped"
    )
