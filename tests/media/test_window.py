from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from squeezedet.errors import UsageError
from squeezedet.media.sinks import Window

pytest.importorskip("tkinter")


def test_no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(UsageError, match="`show` finds no screen; write a video with `save`"):
        Window("street")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A screen that nobody sees."""
    if not shutil.which("Xvfb"):
        pytest.skip("no Xvfb here")
    number = f":{90 + os.getpid() % 1000}"
    with subprocess.Popen(["Xvfb", number], stderr=subprocess.DEVNULL) as server:
        for _ in range(200):
            if Path(f"/tmp/.X11-unix/X{number[1:]}").exists():
                break
            time.sleep(0.02)
        monkeypatch.setenv("DISPLAY", number)
        yield
        server.terminate()


@pytest.mark.usefixtures("screen")
def test_shows_pictures_until_it_is_closed() -> None:
    with Window("street") as window:
        for size in ((64, 48), (5000, 400)):
            window.show(Image.new("RGB", size))
            assert not window.closed
        window._root.event_generate("<Escape>", when="now")
        window._root.update()
        assert window._label.winfo_width() <= window._root.winfo_screenwidth()
