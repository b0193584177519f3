from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

import pytest
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.media.video import VideoFile, read_video

from .conftest import FRAMES, Camera, noise, small_model

pytest.importorskip("av")

RUN = "from squeezedet.cli.main import main; main()"


class Detect(Protocol):
    def __call__(self, *arguments: str | Path) -> Result: ...


@pytest.fixture
def detect(model: Path) -> Detect:
    """Run the command with this model and one thread."""

    def run(*arguments: str | Path) -> Result:
        given = ["detect", *map(str, arguments), "--threads", "1", "--model", str(model)]
        return CliRunner().invoke(app, given, catch_exceptions=False)

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five numbered pictures of the same noise."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(8, 13):
        noise(0).save(folder / f"{number:04d}.png")
    return folder


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_video_to_records_and_video(detect: Detect, video: Path, tmp_path: Path) -> None:
    out, boxes = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    result = detect(video, "--save", out, "--out", boxes, "--score", "0")
    assert result.exit_code == 0
    rows = records(boxes)
    assert list(rows[0])[:4] == ["image", "time_s", "width", "height"]
    assert [row["time_s"] for row in rows] == pytest.approx([n / 8 for n in range(FRAMES)])
    assert {row["image"] for row in rows} == {str(video)}
    assert all(row["detections"] for row in rows)
    assert "track_id" not in rows[0]["detections"][0]
    frames = list(read_video(str(out)))
    assert [f.moment.time_s for f in frames] == pytest.approx([row["time_s"] for row in rows])
    assert frames[0].pixels.shape == (48, 64, 3)
    lines = result.stdout.splitlines()
    assert len(lines) == FRAMES
    assert lines[1].startswith(f"{video}  0.125 s  64x48  ")
    ended, total, written = result.stderr.splitlines()
    assert ended == f"squeezedet: {video}: 12 frames of 1.4 s"
    assert total.startswith("squeezedet: 12 frames: ")
    assert written == f"squeezedet: {out}: 12 frames, H.264 (libx264)"


def test_two_videos_and_a_picture_into_a_folder(detect: Detect, video: Path, pictures: Path, tmp_path: Path) -> None:
    result = detect(video, pictures / "0008.png", video, "--save", tmp_path / "out", "-q")
    assert (result.exit_code, result.output) == (0, "")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["0008.jpg", "drive-2.mp4", "drive.mp4"]


def test_numbered_pictures_become_a_video_with_tracks(detect: Detect, pictures: Path, tmp_path: Path) -> None:
    out, boxes = tmp_path / "out.mkv", tmp_path / "out.jsonl"
    arguments = ("--track", "--save", out, "--out", boxes, "--score", "0", "--fps", "4")
    assert detect(pictures / "%04d.png", *arguments).exit_code == 0
    rows = records(boxes)
    assert [Path(row["image"]).stem for row in rows] == ["0008", "0009", "0010", "0011", "0012"]
    ids = [{box["track_id"] for box in row["detections"]} for row in rows]
    assert ids[0]
    assert all(found == ids[0] for found in ids)  # nothing moves
    times = [frame.moment.time_s for frame in read_video(str(out))]
    assert times == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_tracks_in_every_format(detect: Detect, video: Path, tmp_path: Path) -> None:
    table = detect(video, "--track", "--format", "csv", "--score", "0").stdout
    rows = list(csv.DictReader(io.StringIO(table)))
    assert list(rows[0])[-2:] == ["time_s", "track_id"]
    assert float(rows[-1]["time_s"]) == pytest.approx((FRAMES - 1) / 8)
    coco = json.loads(detect(video, "--track", "--format", "coco", "--score", "0").stdout)
    assert [r["track_id"] for r in coco] == [int(row["track_id"]) for row in rows]


def test_each_video_has_tracks_of_its_own(detect: Detect, video: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "out.jsonl"
    assert detect(video, video, "--track", "--out", boxes, "--score", "0").exit_code == 0
    rows = records(boxes)
    first, second = rows[:FRAMES], rows[FRAMES:]
    assert [row["detections"] for row in first] == [row["detections"] for row in second]


def test_truncated_video_keeps_what_was_read(detect: Detect, video: Path, tmp_path: Path) -> None:
    whole, cut, boxes = tmp_path / "a.mkv", tmp_path / "cut.mkv", tmp_path / "a.json"
    assert detect(video, "--save", whole, "-q").exit_code == 0
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    result = detect(cut, "--save", tmp_path / "b.mp4", "--out", boxes, "-q")
    assert result.exit_code == 3
    assert result.stderr.startswith(f"squeezedet: {cut}: breaks off after ")
    assert len(result.stderr.splitlines()) == 1
    count = len(json.loads(boxes.read_text()))
    assert 1 <= count < FRAMES
    assert len(list(read_video(str(tmp_path / "b.mp4")))) == count


def test_no_video(detect: Detect, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("Dear Sir or Madam")
    result = detect(path, "--save", tmp_path / "b.mp4")
    says = f"squeezedet: {path}: not a video that can be read\n"
    assert (result.exit_code, result.output) == (3, says)
    assert not (tmp_path / "b.mp4").exists()


def test_without_pyav(detect: Detect, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    result = detect(video)
    assert result.exit_code == 2
    assert result.stderr == ("squeezedet: video needs an optional dependency: pip install 'squeezedet[video]'\n")


def test_json_and_jsonl_name_the_file_of_records(detect: Detect, video: Path, tmp_path: Path) -> None:
    assert detect(video, "--jsonl", tmp_path / "a.jsonl", "-q").exit_code == 0
    assert detect(video, "--json", tmp_path / "a.json", "-q").exit_code == 0
    same = [(row["time_s"], row["detections"]) for row in records(tmp_path / "a.jsonl")]
    assert [(row["time_s"], row["detections"]) for row in json.loads((tmp_path / "a.json").read_text())] == same
    assert len(detect(video, "--jsonl", "-", "-q").stdout.splitlines()) == FRAMES
    for two in (("--json", "b.json"), ("--format", "csv"), ("--out", "b.csv")):
        result = detect(video, "--jsonl", "a.jsonl", *two)
        assert result.exit_code == 2
        assert "give one of them" in result.stderr


def test_show_without_a_screen(detect: Detect, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tkinter")
    monkeypatch.delenv("DISPLAY", raising=False)
    result = detect(video, "--show")
    assert result.exit_code == 2
    assert "finds no screen; write a video with --save" in result.stderr


def test_unknown_engine(detect: Detect, video: Path) -> None:
    result = detect(video, "--engine", "steam")
    assert result.exit_code == 2
    assert "steam" in result.stderr


# ------------------------------------------------------------------ what has no end


class Rebooting(Camera):
    """Breaks off after ten frames, comes back once, and then only answers 503."""

    connections = 0

    def do_GET(self) -> None:
        Rebooting.connections += 1
        if Rebooting.connections > 2:
            self.send_error(503)
            return
        deadline = threading.Timer(0.5, self.connection.shutdown, [socket.SHUT_RDWR])
        deadline.start()
        super().do_GET()


def test_a_camera_that_breaks_off_comes_back_and_is_given_up(
    detect: Detect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    out, boxes = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    with ThreadingHTTPServer(("127.0.0.1", 0), Rebooting) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        shown = f"http://127.0.0.1:{server.server_port}/camera?token="
        address = f"{shown.replace('//', '//me:secret@')}secret"
        try:
            result = detect(
                address, "--live", "--track", "--reconnect", "1", "--score", "0", "--save", out, "--out", boxes
            )
        finally:
            server.shutdown()
            thread.join()
    assert result.exit_code == 1
    rows = records(boxes)
    times = [row["time_s"] for row in rows]
    assert times == sorted(set(times))
    assert times[-1] > 1  # the pause was lived through
    assert all(datetime.fromisoformat(row["wall_time"]).tzinfo for row in rows)
    assert len(list(read_video(str(out)))) == len(rows)
    first, again, second, given_up, *_ = result.stderr.splitlines()
    assert first.startswith(f"squeezedet: {shown}...: the stream ended after ")
    assert first.endswith("; opened again in 1 s (attempt 1 of 1)")
    assert again.startswith(f"squeezedet: {shown}...: frames come again after ")
    assert second.endswith("; opened again in 1 s (attempt 1 of 1)")
    assert given_up == f"squeezedet: {shown}...: the server fails (an error of 5xx); given up after 1 attempt"
    assert "secret" not in result.output + boxes.read_text()


def interrupted(
    arguments: list[str], ready: Callable[[], bool], kind: int = signal.SIGINT, after_s: float = 0.0
) -> tuple[int, str]:
    """Run the command until ``ready``, send the signal; its exit code, and what it says on standard error."""
    command = [sys.executable, "-c", RUN, *arguments]
    environment = {**os.environ, "no_proxy": "*"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        for _ in range(3000):
            if ready():
                break
            time.sleep(0.01)
        time.sleep(after_s)
        process.send_signal(kind)
        try:
            _, error = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, error


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_leaves_whole_files(address: str, model: Path, tmp_path: Path, kind: signal.Signals) -> None:
    out, boxes = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    command = ["detect", address, "--live", "--threads", "1", "--save", str(out), "--out", str(boxes)]
    command += ["--model", str(model)]
    code, error = interrupted(command, lambda: boxes.exists() and boxes.read_text().count("\n") >= 5, kind)
    assert code == 130, error
    rows = records(boxes)
    assert len(rows) >= 5
    frames = list(read_video(str(out)))
    first = rows[0]["time_s"]  # the file begins at 0
    assert [f.moment.time_s for f in frames] == pytest.approx([row["time_s"] - first for row in rows], abs=0.001)
    ended, total, written, last = error.splitlines()
    assert ended.startswith(f"squeezedet: {address}: {len(rows)} frames of ")
    assert ended.endswith(" dropped")
    assert total.startswith(f"squeezedet: {len(rows)} frames: ")
    assert all(datetime.fromisoformat(row["wall_time"]).tzinfo for row in rows)
    assert written == f"squeezedet: {out}: {len(rows)} frames, H.264 (libx264)"
    assert last == "squeezedet: interrupted"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.mp4"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_interrupt_of_watch_leaves_totals_and_whole_files(address: str, model: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "a.jsonl"
    command = ["watch", address, "--live", "--zone", "all=0,0,64,0,64,48,0,48", "--score", "0", "--threads", "1"]
    command += ["--model", str(model), "--jsonl", str(boxes), "--save", str(tmp_path)]
    code, error = interrupted(command, lambda: boxes.exists() and "entered" in boxes.read_text())
    assert code == 130, error
    kinds = [row["kind"] for row in records(boxes)]
    assert kinds[-1] == "total"
    assert {"minute", "hour"} <= set(kinds)
    assert len(list(read_video(str(tmp_path / "camera.mp4")))) >= 1
    assert error.splitlines()[-1] == "squeezedet: interrupted"


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("verb", ["detect", pytest.param("watch", marks=pytest.mark.slow)])
def test_interrupt_while_nothing_comes(verb: str, tmp_path: Path) -> None:
    pipe, boxes = tmp_path / "pipe.ts", tmp_path / "a.jsonl"  # nobody writes into the pipe
    os.mkfifo(pipe)
    command = [verb, str(pipe), "--jsonl", str(boxes)]
    assert interrupted(command, boxes.exists, after_s=0.1) == (130, "squeezedet: interrupted\n")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss in kilobytes")
def test_memory_is_flat_over_ten_thousand_frames(tmp_path: Path) -> None:
    """Nine thousand frames more take hardly more memory than a thousand."""
    model = small_model(tmp_path / "small.bundle", 32, 16)
    peaks = []
    for count in (1_000, 10_000):
        path = tmp_path / f"{count}.mp4"
        with VideoFile(path) as file:
            for number in range(count):
                file.write(noise(number % 16, (32, 16)), number / 25)
        code = f"import resource\ntry:\n    {RUN.replace('; ', chr(10) + '    ')}\nfinally:\n    "
        code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        command = [sys.executable, "-c", code, "detect", str(path), "--track", "-q"]
        command += ["--score", "0.05", "--threads", "1", "--model", str(model)]
        command += ["--save", str(tmp_path / "out.mp4"), "--out", str(tmp_path / "out.jsonl")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
        assert len(records(tmp_path / "out.jsonl")) == count
    assert peaks[1] - peaks[0] < 10  # megabytes; MP4's own index takes 50 bytes a frame
