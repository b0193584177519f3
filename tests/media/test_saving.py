from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from squeezedet.detections import Detections
from squeezedet.errors import UsageError
from squeezedet.media.images import Frame, FrameTime
from squeezedet.media.sinks import names_video, saving
from squeezedet.media.sources import MediaSource
from squeezedet.media.video import read_video

pytest.importorskip("av")

NOTHING = Detections.empty(("car",))


def frame(name: str, number: int | None = None) -> Frame:
    moment = None if number is None else FrameTime(number / 4, number)
    return Frame(np.full((32, 48, 3), 99, np.uint8), name, moment=moment)


def test_a_folder_takes_pictures_and_videos(tmp_path: Path) -> None:
    said: list[str] = []
    sources = [MediaSource("a.png", "file"), MediaSource("v.mkv", "video"), MediaSource("v.mkv", "video")]
    with saving(tmp_path / "out", sources, 10, said.append) as save:
        save(frame("a.png"), NOTHING)
        for _ in range(2):
            for number in range(3):
                save(frame("v.mkv", number), NOTHING)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "v-2.mp4", "v.mp4"]
    assert [s.split(": ")[1][:8] for s in said] == ["3 frames", "3 frames"]
    times = [f.moment.time_s for f in read_video(str(tmp_path / "out" / "v-2.mp4"))]
    assert times == pytest.approx([0, 0.25, 0.5])


def test_pictures_become_a_video(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with saving(path, [MediaSource(n, "file") for n in "abc"], 5, print) as save:
        for name in "abc":
            save(frame(name), NOTHING)
    assert [f.moment.time_s for f in read_video(str(path))] == pytest.approx([0, 0.2, 0.4])


def test_an_error_leaves_no_video(tmp_path: Path) -> None:
    with pytest.raises(KeyError), saving(tmp_path / "out", [MediaSource("v", "video")], 10, print) as save:
        save(frame("v", 0), NOTHING)
        raise KeyError
    assert list((tmp_path / "out").iterdir()) == []


def test_targets_that_do_not_fit(tmp_path: Path) -> None:
    videos = [MediaSource("a.mp4", "video"), MediaSource("b.mp4", "video")]
    with (
        pytest.raises(UsageError, match="name a folder for several videos"),
        saving(tmp_path / "out.mp4", videos, 10, print),
    ):
        pass
    own = tmp_path / "a.mp4"
    with (
        pytest.raises(UsageError, match="under another name"),
        saving(own, [MediaSource(str(own), "video")], 10, print),
    ):
        pass
    with (
        pytest.raises(UsageError, match="into another folder"),
        saving(tmp_path, [MediaSource(str(own), "video")], 10, print),
    ):
        pass
    with pytest.raises(UsageError, match="there is no folder"), saving(tmp_path / "none" / "a.mp4", [], 10, print):
        pass
    with (
        pytest.raises(UsageError, match=r"a\.avi: a video is written as \.mp4, "),
        saving(tmp_path / "a.avi", [], 10, print),
    ):
        pass
    assert not (tmp_path / "a.avi").exists()


def test_a_folder_may_have_the_name_of_a_video(tmp_path: Path) -> None:
    assert names_video(tmp_path / "a.mp4")
    assert not names_video(tmp_path / "a.avi")
    (tmp_path / "a.mp4").mkdir()
    assert not names_video(tmp_path / "a.mp4")
