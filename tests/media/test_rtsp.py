"""A camera that speaks RTSP: one picture after the other, a password, and what goes wrong."""

from __future__ import annotations

import base64
import contextlib
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest

from squeezedet.errors import DataError, SourceEndedError
from squeezedet.media import video
from squeezedet.media.video import read_video

av = pytest.importorskip("av")

WIDTH, HEIGHT, FRAMES = 64, 48, 40
SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=street\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n"
)
RIGHT = "Basic " + base64.b64encode(b"me:secret").decode()


def packets() -> Iterator[bytes]:
    """RTP packets (RFC 6184) of a grey that grows by 5 from frame to frame, ten a second."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    codec.time_base = Fraction(1, 10)
    codec.options = {"preset": "ultrafast", "tune": "zerolatency", "slice-max-size": "1200"}
    codec.gop_size = 10
    sequence = 0
    for number in range(FRAMES):
        pixels = np.full((HEIGHT, WIDTH, 3), 5 * number, np.uint8)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = number
        units = b"".join(map(bytes, codec.encode(frame))).replace(b"\0\0\0\1", b"\0\0\1")
        units = units.split(b"\0\0\1")[1:]
        for unit in units:
            last = unit is units[-1]
            head = struct.pack("!BBHII", 0x80, 96 | last << 7, sequence, 9000 * number, 1)
            yield head + unit
            sequence += 1


class Camera(socketserver.StreamRequestHandler):
    """RTSP with the pictures inside its own connection; its ``server.mood`` says how it is."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while request := self._request():
                self._answer(*request)

    def _request(self) -> tuple[str, dict[str, str]] | None:
        first = self.rfile.readline().decode()
        headers = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return (first.split()[0], headers) if first else None

    def _answer(self, method: str, headers: dict[str, str]) -> None:
        mood = self.server.mood  # type: ignore[attr-defined]
        if mood == "silent":
            self.rfile.read(1)  # until the other side has enough
            raise ConnectionResetError
        status, more, body = "200 OK", "", ""
        if method == "OPTIONS":
            more = "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif mood:
            status = mood
        elif headers.get("authorization") != RIGHT:
            status, more = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
        elif method == "DESCRIBE":
            more, body = "Content-Type: application/sdp\r\n", SDP
        elif method == "SETUP":
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        self._send(
            f"RTSP/1.0 {status}\r\nCSeq: {headers.get('cseq', 1)}\r\nSession: 1\r\n{more}"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        if method == "PLAY" and status == "200 OK":
            for packet in packets():
                self._send(struct.pack("!cBH", b"$", 0, len(packet)) + packet)
                time.sleep(0.01)
            raise ConnectionResetError

    def _send(self, content: bytes) -> None:
        self.wfile.write(content)


@contextmanager
def camera(mood: str = "") -> Iterator[str]:
    """Its address, without a password."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Camera) as server:
        server.daemon_threads = True
        server.mood = mood  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}/street"
        finally:
            server.shutdown()
            thread.join()


def sentence(address: str) -> str:
    with pytest.raises(DataError) as raised:
        list(read_video(address, live=True))
    assert "secret" not in str(raised.value)
    return str(raised.value)


def test_pictures_of_a_camera_with_a_password() -> None:
    greys, numbers = [], []
    with camera() as address, pytest.raises(SourceEndedError, match="the stream ended"):
        for frame in read_video(f"rtsp://me:secret@{address}", live=True):
            assert frame.moment is not None
            assert frame.name == f"rtsp://{address}"
            greys.append(round(frame.pixels.mean() / 5))
            numbers.append(frame.moment.number)
            time.sleep(0.05)
    assert greys == sorted(set(greys))
    assert greys[-1] >= FRAMES - 2
    assert numbers[-1] > len(numbers)  # some were dropped


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("", "wants a user name and password, or other ones than these"),
        ("403 Forbidden", "the server refuses it (403)"),
        ("404 Not Found", "the server has nothing at this address (404)"),
        ("503 Service Unavailable", "the server fails (an error of 5xx)"),
        ("silent", "no answer within 0.5 seconds"),
    ],
)
def test_what_a_camera_refuses(mood: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SILENCE_S", 0.5)
    with camera(mood) as address:
        assert sentence(f"rtsp://me:wrong-secret@{address}").startswith(f"rtsp://{address}: {said}")


def test_a_host_that_does_not_exist() -> None:
    assert sentence("rtsp://me:secret@camera.invalid/street") == (
        "rtsp://camera.invalid/street: cannot be reached; is the name of the host right?"
    )
