"""``squeezedet watch`` from a video to records, with a model for small pictures."""

from __future__ import annotations

import csv
import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.media.images import FrameTime
from squeezedet.media.video import read_video
from squeezedet.runtime.detector import load
from squeezedet.watch import actions
from squeezedet.watch.config import Camera, WatchConfig, Zone
from squeezedet.watch.run import Watch

from ..watch.hooks import address, hook
from .conftest import FRAMES

pytest.importorskip("av")

RUN = "from squeezedet.cli.main import main; main()"


class Run(Protocol):
    def __call__(self, *arguments: str | Path) -> Result: ...


@pytest.fixture
def watch(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Result:
        given = ["watch", *map(str, arguments), "--threads", "1", "--model", str(model), "--score", "0"]
        return CliRunner().invoke(app, given, catch_exceptions=False)

    return run


PLACES = ("--line", "gate=32,0,32,48", "--zone", "all=0,0,64,0,64,48,0,48")


def test_the_same_records_in_every_format(watch: Run, video: Path) -> None:
    result = watch(video, *PLACES, "--csv", "a.csv", "--jsonl", "a.jsonl", "--sqlite", "a.sqlite", "--save", "out")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert {line["camera"] for line in lines} == {"drive"}
    assert {"entered", "minute", "hour", "total"} <= {line["kind"] for line in lines}
    with Path("a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{key: str(value) for key, value in line.items()} for line in lines] == [
        {key: value for key, value in row.items() if value} for row in rows
    ]
    database = sqlite3.connect("a.sqlite")
    assert [row[0] for row in database.execute("SELECT kind FROM records")] == [line["kind"] for line in lines]
    hours = database.execute("SELECT class, count FROM per_hour WHERE place = 'all' ORDER BY class").fetchall()
    database.close()
    totals = [(line["class"], line["count"]) for line in lines if line["kind"] == "total" and line["place"] == "all"]
    assert hours == sorted(totals)
    entered = [line["class"] for line in lines if line["kind"] == "entered"]
    assert sorted((name, entered.count(name)) for name in set(entered)) == hours
    assert result.stdout.splitlines()[0].split() == ["camera", "where", "class", "direction", "count", "inside"]
    assert len(list(read_video("out/drive.mp4"))) == FRAMES


def test_records_of_a_second_run_are_appended(watch: Run, video: Path) -> None:
    for times in (1, 2):
        assert watch(video, *PLACES, "--csv", "a.csv", "--sqlite", "a.sqlite", "-q").output == ""
        lines = Path("a.csv").read_text().splitlines()
        assert sum(line.startswith("kind,") for line in lines) == 1
        assert sum(line.startswith("hour,drive,,0.0,,all,") for line in lines) % times == 0


def test_check_draws_lines_and_zones_over_the_first_frame(watch: Run, video: Path) -> None:
    result = watch(video, "--line", "gate=32,0,32,48", "--check", "pictures")
    assert (result.exit_code, result.stdout) == (0, "pictures/drive.jpg\n")
    drawn = np.asarray(Image.open("pictures/drive.jpg").convert("RGB")).astype(int)
    plain = next(read_video(str(video))).pixels.astype(int)
    changed = abs(drawn - plain).mean(axis=(0, 2)) > 40
    assert changed[31:34].all()
    outside = watch(video, "--line", "gate=32,0,32,49", "--check", "pictures")
    assert outside.exit_code == 3
    assert "line 'gate': (32, 49) is outside of the picture, 64x48 pixels" in outside.stderr


CONFIG = """
jsonl = "out.jsonl"
reconnect = 0

[[cameras]]
name = "away"
source = "rtsp://me:secret@127.0.0.1:1/street"

[[cameras]]
name = "narrow"
source = "drive.mp4"
[[cameras.lines]]
name = "gate"
points = [[0, 0], [100, 10]]

[[cameras]]
name = "good"
source = "drive.mp4"
[[cameras.zones]]
name = "all"
points = [[0, 0], [64, 0], [64, 48], [0, 48]]
[[cameras.events]]
name = "much"
when = "more_than"
zone = "all"
count = 0
snapshot = true
clip = true
run = ["touch", "{camera}-{place}"]
"""


def test_a_camera_that_fails_stops_no_other(watch: Run, video: Path, tmp_path: Path) -> None:
    (tmp_path / "drive.mp4").write_bytes(video.read_bytes())
    Path("watch.toml").write_text(CONFIG)
    result = watch("--config", "watch.toml")
    assert result.exit_code == 3
    assert "camera 'away': rtsp://127.0.0.1:1/street: nobody answers at this address" in result.stderr
    assert "camera 'narrow': line 'gate': (100, 10) is outside of the picture, 64x48 pixels" in result.stderr
    assert "secret" not in result.output
    records = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert {record["camera"] for record in records} == {"good"}
    alarm = next(record for record in records if record["kind"] == "alarm")
    assert (alarm["event"], alarm["place"]) == ("much", "all")
    assert Path("good-all").exists()
    clip, picture = sorted(Path("events").iterdir(), key=lambda path: path.suffix, reverse=True)
    assert picture.suffix == ".jpg"
    assert 1 <= len(list(read_video(str(clip)))) <= FRAMES


def test_what_does_not_fit_together(watch: Run, video: Path, tmp_path: Path) -> None:
    assert "there is nothing to watch" in watch().stderr
    (tmp_path / "watch.toml").write_text(CONFIG)
    assert "and there are several" in watch(video, "--config", "watch.toml").stderr
    assert "are for a SOURCE" in watch("--config", "watch.toml", "--live").stderr
    assert "'gate=1,2,3' is not NAME=X1,Y1,X2,Y2" in watch(video, "--line", "gate=1,2,3").stderr
    assert "--line: 'gate' has 3 points, not two" in watch(video, "--line", "gate=1,2,3,4,5,6").stderr
    assert watch(video, "--zone", "z=0,0,9,9,9,0,0,9").exit_code == 2


@pytest.mark.slow
def test_reconnect_given_by_hand_stands_above_the_file(model: Path, tmp_path: Path) -> None:
    (tmp_path / "watch.toml").write_text(CONFIG.partition('[[cameras]]\nname = "narrow"')[0])
    command = [sys.executable, "-c", RUN, "watch", "--config", "watch.toml", "--reconnect", "10", "--model", str(model)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert "opened again in 1 s (attempt 1 of 10)" in first
    assert process.returncode == 130


FAILING = """
csv = "out.csv"
jsonl = "/dev/full"
[mqtt]
host = "127.0.0.1"
port = 1
[[cameras]]
name = "good"
source = "drive.mp4"
[[cameras.zones]]
name = "all"
points = [[0, 0], [64, 0], [64, 48], [0, 48]]
"""
EVENT = """
[[cameras.events]]
name = "{name}"
when = "more_than"
zone = "all"
count = 0
webhook = "{webhook}"
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_fails_is_told_once_and_stops_nothing(
    watch: Run, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three webhooks that fail, a broker that is not there and a full disk."""
    pytest.importorskip("paho.mqtt")
    monkeypatch.setattr(actions, "ANSWER_S", 0.3)
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "drive.mp4").write_bytes(video.read_bytes())
    with hook() as other, hook(*[500] * 9) as fails, hook(*["hang"] * 9) as hangs, ExitStack() as stack:
        moved = stack.enter_context(hook(*[f"307 {address(other)}"] * 9))
        webhooks = [address(server).replace("//", "//me:secret@") for server in (fails, hangs, moved)]
        events = [EVENT.format(name=f"event {n}", webhook=webhook) for n, webhook in enumerate(webhooks)]
        Path("watch.toml").write_text(FAILING + "".join(events))
        result = watch("--config", "watch.toml")
        assert not other.got
        assert fails.authorization == "Basic bWU6c2VjcmV0"
    assert result.exit_code == 1
    assert "secret" not in result.output
    told = [line for line in result.stderr.splitlines() if line.startswith("squeezedet: webhook 127.0.0.1: ")]
    for what in ("answers 500", "no answer within 0.3 seconds", "redirects elsewhere, which is not followed"):
        assert sum(f": {what}; events wait in webhooks.sqlite" in line for line in told) == 1
    assert len(told) == 3
    for sentence in ("mqtt 127.0.0.1: cannot be reached; tried again", "/dev/full: cannot be written (No space left"):
        assert result.stderr.count(sentence) == 1
    with Path("out.csv").open(newline="") as file:
        kinds = [row["kind"] for row in csv.DictReader(file)]
    assert kinds.count("alarm") >= 3
    assert kinds[-1] == "total"


def test_a_camera_of_this_machine_that_is_not_there(watch: Run, video: Path) -> None:
    result = watch("/dev/video987", video, "--reconnect", "1", "-q")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "squeezedet: camera 'video987': /dev/video987: no such file or device; opened again in 1 s (attempt 1 of 1)",
        "squeezedet: camera 'video987': /dev/video987: no such file or device; given up after 1 attempt",
    ]
    assert watch("/dev/video987", "--reconnect", "0").exit_code == 3


def test_a_clock_that_jumps_is_told_and_counting_goes_on(model: Path, video: Path, tmp_path: Path) -> None:
    zone = Zone(name="all", points=((0, 0), (64, 0), (64, 48), (0, 48)))
    camera = Camera(name="a", source=str(video), zones=(zone,))
    config = WatchConfig(cameras=(camera,), score=0.0, jsonl=tmp_path / "a.jsonl")
    start = datetime(2026, 3, 29, 1, 59, 59, tzinfo=UTC)
    said: list[str] = []
    with Watch(config, load(model, threads=1), said.append, said.append) as run:
        for number, frame in enumerate(read_video(str(video))):
            jump_s = 3600 if 4 <= number < 8 else 0
            wall_time = start + timedelta(seconds=number / 100 + jump_s)
            run.frame(0, replace(frame, moment=FrameTime(number / 100, number, wall_time=wall_time)))
    assert said == [f"camera 'a': the clock was changed by {by} seconds" for by in ("+3600", "-3600")]
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    entered = sum(record["kind"] == "entered" for record in records)
    for kind in ("minute", "hour", "total"):
        assert sum(record["count"] for record in records if record["kind"] == kind) == entered > 0


def test_no_password_stands_in_a_message_a_record_or_a_name(
    watch: Run, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    for name in ("/user/me/Secret?token=Secret", "/pass/Secret"):
        options = (*PLACES, "--reconnect", "0", "--csv", "a.csv", "--save", "out", "--sqlite", "a.sqlite")
        result = watch(f"rtsp://me:Secret@127.0.0.1:1{name}", video, *options)
        assert result.exit_code == 3
        assert "127.0.0.1:1/" in result.stderr
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(written) >= 3
        said = result.output.encode() + b"".join(path.read_bytes() for path in written)
        assert b"Secret" not in said + str(written).encode()
