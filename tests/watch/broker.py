"""A real broker, mosquitto."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
with_broker = pytest.mark.skipif(mosquitto is None, reason="needs mosquitto")


@contextmanager
def broker(folder: Path, port: int, more: str = "allow_anonymous true") -> Iterator[None]:
    path = folder / "mosquitto.conf"
    path.write_text(f"listener {port} 127.0.0.1\n{more}\nuser root\n")
    with subprocess.Popen([str(mosquitto), "-c", str(path)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: _open(port))
            yield
        finally:
            process.terminate()


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")
