from __future__ import annotations

from dataclasses import replace

import numpy as np

from squeezedet.detections import Detections
from squeezedet.media.images import Frame, FrameTime
from squeezedet.media.sinks import Summary, describe

PIXELS = np.zeros((1, 1, 3), np.uint8)


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


def last_of(name: str, moment: FrameTime) -> str:
    summary = Summary()
    summary.add(Frame(PIXELS, name, moment=moment), Detections.empty(("car",)))
    assert summary.video() != ""
    summary.add(Frame(PIXELS, name, moment=moment), Detections.empty(("car",)))
    return summary.video()


def test_end_of_a_video() -> None:
    assert last_of("a.mp4", FrameTime(0, 0)) == "a.mp4: 1 frame of 0.0 s"
    assert last_of("a.mp4", FrameTime(7.72, 77, damaged=2)) == "a.mp4: 78 frames of 7.7 s, 2 damaged"
    assert last_of("cam", FrameTime(60.04, 1799, 1000)) == "cam: 800 frames of 60.0 s, 1000 dropped"
    assert Summary().video() == ""


def test_total_counts_boxes_and_objects() -> None:
    summary = Summary()
    found = Detections(
        np.zeros((3, 4), np.float32),
        np.ones(3, np.float32),
        np.array([1, 0, 1]),
        ("car", "pedestrian"),
        track_id=np.array([1, 2, 3]),
    )
    for number in range(2):
        frame = Frame(PIXELS, "a.mp4", moment=FrameTime(number / 10, number))
        assert summary.begins(frame) == (number == 0)
        summary.add(frame, found)
    assert summary.total() == "2 frames: car 2 (1 object), pedestrian 4 (2 objects)"
    again = Frame(PIXELS, "b.mp4", moment=FrameTime(0, 0))
    assert summary.begins(again)
    assert summary.begins(Frame(PIXELS))
    summary.add(again, found)  # ids of another video are other objects
    assert summary.total() == "3 frames: car 3 (2 objects), pedestrian 6 (4 objects)"
    images = Summary()
    images.add(Frame(PIXELS), replace(found, track_id=None))
    assert images.total() == "1 image: car 1, pedestrian 2"
