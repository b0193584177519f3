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
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.runtime.bundle import WEIGHTS


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
