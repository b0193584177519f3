"""Changing over to another model while frames come: none is lost, and tracks go on."""

from __future__ import annotations

import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from squeezedet.cli.main import app
from squeezedet.cli.options import open_detector
from squeezedet.errors import UsageError
from squeezedet.media.images import Frame, FrameTime, read_image
from squeezedet.ota import device
from squeezedet.ota.device import FollowingDetector
from squeezedet.runtime.bundle import WEIGHTS
from squeezedet.runtime.detector import FrameStream

from .vendor import NOW, Fleet

PATIENCE_S = 120


@pytest.fixture
def folder(fleet: Fleet, tmp_path: Path) -> Path:
    device.apply(fleet.whole[0], tmp_path / "device", fleet.keys, now=NOW)
    return tmp_path / "device"


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_stream_goes_on_with_the_next_model(fleet: Fleet, folder: Path) -> None:
    said: list[str] = []
    detector = FollowingDetector(folder, said.append, threads=1)
    stream = FrameStream(detector, track=True)
    picture = read_image(WEIGHTS / "demo.jpg")
    ids, names, frames = [], [], 0

    def frame() -> None:
        nonlocal frames
        found = stream.detect(replace(picture, moment=FrameTime(frames / 10, frames)))
        frames += 1
        ids.append(set(found.track_id.tolist()) if found.track_id is not None else set())
        names.append(detector.newest().card.name)

    for _ in range(5):
        frame()
    device.apply(fleet.delta[1], folder, fleet.keys, now=NOW)
    until(lambda: frame() or names[-1] == "second")
    for _ in range(5):
        frame()
    assert len(ids) == frames  # every frame was answered
    assert names[0] == "street"
    assert ids[4]
    assert ids[4] & ids[-1]  # the same objects, by the other model
    assert said == [f"{folder}: changed over to another model"]
    device.rollback(folder)
    until(lambda: frame() or names[-1] == "street")


def test_what_is_damaged_is_not_used(fleet: Fleet, folder: Path) -> None:
    device.apply(fleet.delta[1], folder, fleet.keys, now=NOW)
    state = device.read_state(folder)
    assert state is not None
    content = (folder / state.current.file).read_bytes()
    (folder / state.current.file).write_bytes(content[:-1] + b"x")
    said: list[str] = []
    detector = FollowingDetector(folder, said.append)
    assert detector.card.name == "street"
    assert re.search("was changed or damaged; going on with version 1", said[0])
    (folder / device.STATE).write_text("{")
    until(lambda: detector.newest() and len(said) > 1)
    assert "state.json: is damaged" in said[1]
    assert detector.newest().card.name == "street"


def test_it_opens_its_folder_anew_in_another_process(folder: Path, tmp_path: Path) -> None:
    detector = open_detector(None, folder, threads=1)
    again = pickle.loads(pickle.dumps(detector))
    frame = Frame(read_image(WEIGHTS / "demo.jpg").pixels)
    assert again.detect(frame).xyxy.tolist() == detector.detect(frame).xyxy.tolist()
    with pytest.raises(UsageError, match="give one of the two"):
        open_detector("street-ssd", folder)
    with pytest.raises(UsageError, match="no package was applied there yet"):
        open_detector(None, tmp_path)


def test_detect_and_watch(folder: Path, tmp_path: Path) -> None:
    picture, out = WEIGHTS / "demo.jpg", tmp_path / "boxes.json"
    for words in (
        ["detect", picture, "--model-dir", folder, "-o", out],
        ["watch", picture, "--model-dir", folder, "--line", "gate=600,200,600,370"],
    ):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
    assert "car" in out.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_answers_every_request(fleet: Fleet, folder: Path, workers: int) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")
    command = ["serve", "--port", "0", "--threads", "1", "--model-dir", str(folder), "--workers", str(workers)]
    with subprocess.Popen([sys.executable, "-m", "squeezedet", *command], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition(" at ")[2].partition(" ")[0]
            content, codes, stop = (WEIGHTS / "demo.jpg").read_bytes(), [], threading.Event()

            def ask() -> None:
                with httpx.Client(timeout=60) as client:
                    while not stop.is_set():
                        codes.append(client.post(f"{url}detect", content=content).status_code)

            client = threading.Thread(target=ask)
            client.start()
            try:
                until(lambda: codes)
                assert httpx.get(f"{url}model", timeout=60).json()["name"] == "street"
                device.apply(fleet.delta[1], folder, fleet.keys, now=NOW)
                until(lambda: httpx.get(f"{url}model", timeout=60).json()["name"] == "second")
                count = len(codes)
                until(lambda: len(codes) > count + 2)
            finally:
                stop.set()
                client.join()
            assert set(codes) == {200}
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
