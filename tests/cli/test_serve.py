"""``squeezedet serve``: the command; what it serves is tested in ``tests/serving``."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.media.video import VideoFile
from squeezedet.runtime.bundle import WEIGHTS
from squeezedet.watch.config import read_config


def serve(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["serve", *map(str, arguments)], catch_exceptions=False)


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the address that it names."""
    command = [sys.executable, "-m", "squeezedet", "serve", "--port", "0", "--threads", "1"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield process, line.partition(" at ")[2].partition(" ")[0]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_from_start_to_stop(number: signal.Signals) -> None:
    with started() as (process, url):
        assert url.startswith("http://127.0.0.1:")
        content = (WEIGHTS / "demo.jpg").read_bytes()
        response = httpx.post(f"{url}detect", content=content, timeout=30)
        assert response.json()["detections"]
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stdout, stderr) == (0, "stopped\n", "")


@pytest.mark.slow
def test_cameras_of_options_and_of_the_file_that_the_page_writes(tmp_path: Path) -> None:
    pytest.importorskip("av")
    video, path = tmp_path / "street.mp4", tmp_path / "watch.toml"
    with VideoFile(video) as file:
        for number in range(10):
            file.write(Image.new("RGB", (128, 96), (20 * number, 90, 90)), number / 10)
    places = {"version": 0, "lines": [{"name": "gate", "points": [[5, 5], [90, 90]]}], "zones": []}
    given = ["--watch-config", str(path)]
    for sources in (["--source", str(video)], [], ["--source", str(video)]):  # the file has it from the second run on
        with started(*sources, *given) as (process, url):
            assert httpx.get(f"{url}cameras").json() == {"names": ["street"], "editable": True}
            while not path.exists():
                answer = httpx.put(f"{url}cameras/street/places", json=places)
                assert answer.status_code == 200 or "has not given a picture" in answer.json()["error"]
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=60)
            assert (process.returncode, stdout, stderr) == (0, "stopped\n", "")
    assert read_config(path).cameras[0].lines[0].name == "gate"
    refused = serve("--watch-config", tmp_path / "none.toml")
    assert refused.exit_code == 2
    assert "none.toml" in refused.stderr


def test_another_address_needs_a_token() -> None:
    result = serve("--host", "0.0.0.0")
    assert result.exit_code == 2
    assert result.stderr.startswith("squeezedet: --host 0.0.0.0: others can reach")


def test_a_bad_token_file(tmp_path: Path) -> None:
    result = serve("--token", tmp_path / "none")
    assert result.exit_code == 2
    assert "no such file" in result.stderr


def test_a_model_that_does_not_exist() -> None:
    assert serve("--model", "none").exit_code == 2


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = serve("--port", str(port))
    assert result.exit_code == 1
    assert f"cannot listen at 127.0.0.1 port {port}" in result.stderr


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    result = serve()
    assert result.exit_code == 2
    assert "pip install 'squeezedet[serve]'" in result.stderr
