"""Recorded power logs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.benchmark.meter import read_log
from squeezedet.benchmark.power_log import read
from squeezedet.errors import DataError, SqueezeDetError, UsageError


def write(path: Path, powers_w: list[float], interval_s: float = 0.1) -> Path:
    rows = [f"{i * interval_s:.3f},{power}" for i, power in enumerate(powers_w)]
    path.write_text("\n".join(["time_s,power_w", *rows]) + "\n")
    return path


def test_the_supplements_method_on_a_log(tmp_path: Path) -> None:
    path = write(tmp_path / "power.csv", [15.0] * 30 + [80.9] * 600 + [15.0] * 30)
    found = read_log(path, frames=3432)  # 57.2 frames/s for 60 s
    assert found.power_w == pytest.approx(80.9)
    assert found.frames_per_s == pytest.approx(57.2)
    assert found.energy_per_frame_j == pytest.approx(80.9 / 57.2)
    assert found.idle == "idle power of 15.0 W not subtracted"
    assert found.less_idle(15.0).energy_per_frame_j == pytest.approx(65.9 / 57.2)
    assert found.source == f"power log {path}"


def test_line_ends_marks_and_times_of_day(tmp_path: Path) -> None:
    path = tmp_path / "power.csv"
    path.write_bytes(b"\xef\xbb\xbftime_s,power_w\r\n1763712000.5,15\r\n1763712000.6,2.5e1")
    times_s, power_w = read(path)
    assert times_s.tolist() == [1763712000.5, 1763712000.6]
    assert power_w.tolist() == [15.0, 25.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r":1: the first line must be 'time_s,power_w', not an empty file"),
        ("time,power\n0,1\n", r":1: the first line must be"),
        ("time_s,power_w,fan\n0,1,2\n", r":1: the first line must be"),
        ("power_w,time_s\n0,1\n", r":1: the first line must be"),
        ("time_s,power_w\n", r": the log has no samples"),
        ("time_s,power_w\n0,1\n0.1\n", r":3: '0\.1' is not a time and a power"),
        ("time_s,power_w\n0,1,2\n", r":2: '0,1,2' is not a time and a power"),
        ("time_s,power_w\n0,1\n\n0.2,1\n", r":3: '' is not a time and a power"),
        ("time_s,power_w\n0,80.9 W\n", r":2: power_w: '80\.9 W' is not a number"),
        ("time_s,power_w\n0,[N/A]\n", r":2: power_w: '\[N/A\]' is not a number"),
        ("time_s,power_w\n1_0,1\n", r":2: time_s: '1_0' is not a number"),
        ("time_s,power_w\n0,nan\n", r":2: power_w: nan is not finite"),
        ("time_s,power_w\n1e999,1\n", r":2: time_s: 1e999 is not finite"),
        ("time_s,power_w\n0,-1\n", r":2: power_w -1 is below 0"),
        ("time_s,power_w\n1e13,1\n", r":2: time_s: 1e13 is beyond 1000000000000"),
        ("time_s,power_w\n0,1\n0.1,1\n0.1,1\n", r":4: time_s 0\.1 does not come after 0\.1"),
    ],
)
def test_what_is_no_log(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "power.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        read(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="is a folder, not a power log"):
        read(tmp_path)
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff")
    with pytest.raises(DataError, match="is not text"):
        read(tmp_path / "picture.csv")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_log_or_a_data_error(tmp_path_factory: object, tail: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"  # type: ignore[attr-defined]
    path.write_bytes(b"time_s,power_w\n0,50\n0.1,50\n" + tail)
    try:
        times_s, _ = read(path)
        read_log(path, 1)
    except DataError as error:
        assert str(error).startswith(str(path))
    else:
        assert len(times_s) >= 2


def test_a_log_without_work(tmp_path: Path) -> None:
    path = write(tmp_path / "idle.csv", [7.0] * 50)
    with pytest.raises(DataError, match=r"idle\.csv: no working period"):
        read_log(path, 1)
    assert read_log(path, 1, working_w=5.0).power_w == pytest.approx(7.0)


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_a_threshold_is_a_number_of_watts(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(UsageError, match="the threshold of work"):
        read_log(write(tmp_path / "power.csv", [50.0] * 9), 1, working_w=threshold)


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(SqueezeDetError, match="frames: there must be 1 at least"):
        read_log(write(tmp_path / "power.csv", [50.0] * 9), frames=-3)
