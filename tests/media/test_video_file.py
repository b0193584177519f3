from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.media import video
from squeezedet.media.video import CODECS, VideoFile, read_video

av = pytest.importorskip("av")

UNEVEN = [0.0, 0.1, 0.2334, 0.3, 0.9, 1.0, 1.5, 1.6]
COLORS = [(200, 30 * n, 0) for n in range(len(UNEVEN))]


def write(path: Path, size: tuple[int, int] = (64, 48)) -> VideoFile:
    with VideoFile(path) as file:
        for time_s, colour in zip(UNEVEN, COLORS, strict=True):
            file.write(Image.new("RGB", size, colour), time_s)
    return file


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".MP4"])
def test_pictures_and_times_come_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    file = write(path)
    frames = list(read_video(str(path)))
    assert [f.moment.time_s for f in frames] == pytest.approx(UNEVEN, abs=0.001)
    for frame, colour in zip(frames, COLORS, strict=True):
        assert np.abs(frame.pixels.astype(int) - colour).max() < 10
    assert file.describe() == f"{path}: 8 frames, {CODECS['libx264']}"
    assert list(tmp_path.iterdir()) == [path]


def test_where_h264_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    monkeypatch.setattr(video, "CODECS", {"no_such_encoder": "none", "mpeg4": "MPEG-4 part 2 (mpeg4)"})
    file = write(path)
    assert file.describe() == f"{path}: 8 frames, MPEG-4 part 2 (mpeg4)"
    times = [frame.moment.time_s for frame in read_video(str(path))]
    assert times == pytest.approx(UNEVEN, abs=0.001)
    monkeypatch.setattr(video, "CODECS", {"no_such_encoder": "none"})
    with pytest.raises(SqueezeDetError, match="holds no encoder of no_such_encoder"):
        VideoFile(path)


@pytest.mark.parametrize("rate", [10, 24, 25, 30000 / 1001, 60])
def test_usual_rates(tmp_path: Path, rate: float) -> None:
    path = tmp_path / "a.mp4"
    with VideoFile(path) as file:
        for number in range(20):
            file.write(Image.new("RGB", (32, 32)), number / rate)
    times = [frame.moment.time_s for frame in read_video(str(path))]
    assert times == pytest.approx([n / rate for n in range(20)], abs=1e-5)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(20 / rate, abs=0.002)


@pytest.mark.parametrize("size", [(65, 47), (64, 47), (65, 48), (1, 1), (3, 2)])
def test_odd_sides_are_one_pixel_longer(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "a.mp4"
    write(path, size)
    frames = list(read_video(str(path)))
    width, height = size[0] + size[0] % 2, size[1] + size[1] % 2
    assert frames[0].pixels.shape == (height, width, 3)
    assert np.abs(frames[0].pixels.astype(int) - COLORS[0]).max() < 10


def test_another_size_is_fitted_in(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoFile(path) as file:
        file.write(Image.new("RGB", (64, 48), "white"), 0)
        file.write(Image.new("RGB", (96, 48), "white"), 0.1)
    last = list(read_video(str(path)))[-1].pixels
    assert last.shape == (48, 64, 3)
    assert last[2].max() < 60
    assert last[24].min() > 200


def test_times_that_do_not_rise(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoFile(path) as file:
        for time_s in (0.0, 0.5, 0.5, 0.2, 1.0):
            file.write(Image.new("RGB", (32, 32)), time_s)
    times = [frame.moment.time_s for frame in read_video(str(path))]
    assert times == pytest.approx([0, 0.5, 0.5, 0.5, 1.0], abs=0.001)
    assert times == sorted(set(times))


def test_no_frame_no_file(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("old")
    with pytest.raises(KeyError), VideoFile(path) as file:
        file.write(Image.new("RGB", (32, 32)), 0)
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a video is written as \.mp4"):
        VideoFile(tmp_path / "a.gif")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.symlink_to("/dev/full")
    with pytest.raises(SqueezeDetError, match=r"a\.mkv: cannot be written"):
        write(path)
