"""Debian's Chromium, pages in it, and what they need: a static host, videos, pictures."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

READY_MS = 120_000
"""For what a browser does on a busy machine."""


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if shutil.which("chromium") is None:
        pytest.skip("no chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright, launched(playwright.chromium) as browser:
        yield browser


@contextmanager
def launched(kind: Any, *arguments: str) -> Iterator[Any]:
    """One more browser beside another, whose ``browser_type`` is given, with arguments."""
    path = shutil.which("chromium")
    browser = kind.launch(executable_path=path, args=["--no-sandbox", *arguments])
    yield browser
    browser.close()


class Visit:
    """A page that was opened, and all that it asked for and complained of.

    Args:
        browser: from ``chromium``.
        address: of the page.
        context: options of the browser's context: ``viewport``, ``color_scheme``, ...
    """

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.address = address
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(READY_MS)
        self.complaints: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.context.on("request", lambda asked: self.requests.append((asked.method, asked.url)))
        self.page.on("websocket", lambda socket: self.requests.append(("WS", socket.url)))
        self.page.goto(address)

    def ready(self) -> Visit:
        """Wait until pictures can be given."""
        self.page.wait_for_selector("#choose:enabled")
        return self

    def give(self, *files: Path) -> None:
        """Choose files, as the visitor's dialog does."""
        self.page.set_input_files("#files", [str(file) for file in files])

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression holds."""
        self.page.wait_for_function(f"() => {condition}")

    def status(self, text: str) -> None:
        """Wait until the status line holds a text."""
        self.page.wait_for_function("text => document.getElementById('status').textContent.includes(text)", arg=text)

    def foreign(self) -> list[str]:
        """Requests to any other host."""
        host = self.address.split("://")[1].split("/")[0]
        return [url for _, url in self.requests if f"://{host}/" not in url and "blob:" not in url]

    def close(self) -> None:
        self.context.close()

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def static_host(folder: Path, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Serve a folder as any static host does, with headers if given; the address."""

    class Handler(_Quiet):
        def end_headers(self) -> None:
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

    handler = functools.partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def write_webm(path: Path, pixels: NDArray[np.uint8], frames: int, rate: int = 10) -> None:
    """A VP8 video of one (H, W, 3) picture."""
    av = pytest.importorskip("av")
    height, width = pixels.shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.time_base = Fraction(1, rate)
        for _ in range(frames):
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def write_mjpeg(path: Path, pixels: NDArray[np.uint8]) -> None:
    """What Chromium's fake camera takes: JPEGs, one after the other; it repeats them."""
    from PIL import Image

    with path.open("wb") as file:
        for _ in range(2):
            Image.fromarray(pixels).save(file, "JPEG", quality=92)
