"""Records that cannot be written stop no others."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.watch.config import Camera, WatchConfig
from squeezedet.watch.counting import Event, Records, recent_minutes

CAMERAS = (Camera(name="a", source="0"),)
EVENT = Event(kind="entered", camera="a", time_s=1.0, place="yard", class_name="car", track_id=1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_once_and_the_other_file_grows(tmp_path: Path) -> None:
    said: list[str] = []
    config = WatchConfig(cameras=CAMERAS, csv=tmp_path / "a.csv", jsonl=Path("/dev/full"))
    with Records(config, said.append) as records:
        for number in range(1, 4):
            records.write([EVENT])
            assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + number
    assert said == ["/dev/full: cannot be written (No space left on device)"]
    assert records.lost


def test_minutes_of_the_last_hours_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "counts.sqlite"
    now = datetime.now().astimezone().replace(microsecond=0)
    minute = Event(kind="minute", camera="gate", time_s=0.0, place="line", direction="in", count=3)
    others = [replace(minute, kind="hour", wall_time=now), replace(minute, camera="other", wall_time=now), minute]
    with Records(WatchConfig(cameras=CAMERAS, sqlite=path), pytest.fail) as records:
        times = [now - timedelta(hours=30), now - timedelta(hours=2), now.astimezone(timezone(timedelta(hours=9)))]
        records.write([*others, *(replace(minute, wall_time=time) for time in times)])
        records.write([replace(minute, kind="minute", place="zone", direction="", wall_time=now)])
    assert recent_minutes(path, "gate", now - timedelta(days=1)) == [
        (now, "zone", "", 3),
        (now, "line", "in", 3),
        (now - timedelta(hours=2), "line", "in", 3),
    ]
    (tmp_path / "none").write_text("no database, " * 100)
    with pytest.raises(SqueezeDetError, match="cannot be read as an SQLite file"):
        recent_minutes(tmp_path / "none", "gate", now)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and it is long enough to be told from one" * 20)
    with pytest.raises(SqueezeDetError, match="cannot be used as an SQLite file"):
        Records(WatchConfig(cameras=CAMERAS, sqlite=tmp_path / "text"), print)
    if Path("/dev/full").exists():
        with pytest.raises(SqueezeDetError, match=r"/dev/full: cannot be written \(No space"):
            Records(WatchConfig(cameras=CAMERAS, csv=Path("/dev/full")), print)
    with pytest.raises(UsageError, match="there is no folder"):
        Records(WatchConfig(cameras=CAMERAS, csv=tmp_path / "none" / "a.csv"), print)


def test_a_file_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    video, notes, both = tmp_path / "drive.mp4", tmp_path / "notes.csv", tmp_path / "both"
    video.write_bytes(b"a video")
    notes.write_text("name,amount\n")
    cameras = (Camera(name="a", source=str(video)),)
    with pytest.raises(UsageError, match=r"drive\.mp4: is a camera's source"):
        Records(WatchConfig(cameras=cameras, csv=video), print)
    with pytest.raises(UsageError, match=r"both: is given for two kinds of records"):
        Records(WatchConfig(cameras=cameras, csv=both, jsonl=both), print)
    with pytest.raises(UsageError, match=r"notes\.csv: exists, and is no CSV file of records"):
        Records(WatchConfig(cameras=cameras, csv=notes), print)
    with pytest.raises(UsageError, match=r"notes\.csv: exists, and is no JSON Lines file of records"):
        Records(WatchConfig(cameras=cameras, jsonl=notes), print)
    assert (video.read_bytes(), notes.read_text()) == (b"a video", "name,amount\n")


def test_another_thread_writes(tmp_path: Path) -> None:
    """As a server's threads do, which did not open the files."""
    path = tmp_path / "counts.sqlite"
    minute = Event(kind="minute", camera="a", time_s=0.0, place="line", wall_time=datetime.now().astimezone(), count=3)
    with Records(WatchConfig(cameras=CAMERAS, sqlite=path), pytest.fail) as records:
        thread = threading.Thread(target=records.write, args=([minute],))
        thread.start()
        thread.join()
        assert len(recent_minutes(path, "a", datetime.now().astimezone() - timedelta(days=1))) == 1
