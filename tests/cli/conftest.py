"""A short video, a model for pictures of its size, and a camera without an end."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squeezedet.runtime.bundle import find, read, write

FRAMES = 12


def noise(number: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Noise that moves to the right; the model sees something in it at score 0."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(np.roll(pixels, number, axis=1))


def small_model(path: Path, width: int, height: int) -> Path:
    """The shipped model for small pictures: a frame takes little time."""
    shipped = read(find("street"))
    card = replace(shipped.card, input=replace(shipped.card.input, width=width, height=height))
    write(path, replace(shipped, card=card))
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "small.bundle", 64, 48)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames, eight a second."""
    pytest.importorskip("av")
    from squeezedet.media.video import VideoFile

    path = tmp_path_factory.mktemp("video") / "drive.mp4"
    with VideoFile(path) as file:
        for number in range(FRAMES):
            file.write(noise(number), number / 8)
    return path


class Camera(BaseHTTPRequestHandler):
    """Motion JPEG, two hundred frames a second, without an end."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        buffer = io.BytesIO()
        noise(0).save(buffer, "JPEG")
        part = buffer.getvalue()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
        try:
            while True:
                self.wfile.write(head.encode() + part + b"\r\n")
                time.sleep(0.005)
        except ConnectionError:
            pass

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/camera"
        server.shutdown()
        thread.join()
