"""A camera that speaks RTSP, with its pictures inside its own connection (RFC 2326, 10.12)."""

from __future__ import annotations

import base64
import contextlib
import socketserver
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

av = pytest.importorskip("av")

WIDTH, HEIGHT, FRAMES = 64, 48, 40
GREYS = [np.full((HEIGHT, WIDTH, 3), 5 * number, np.uint8) for number in range(FRAMES)]
"""A grey that grows by 5 from frame to frame."""
SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=street\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n"
)
RIGHT = "Basic " + base64.b64encode(b"me:secret").decode()


def packets(pictures: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[int, bytes]]:
    """RTP packets (RFC 6184) of pictures, ten a second, each with the number of its picture."""
    codec = av.CodecContext.create("libx264", "w")
    codec.height, codec.width, _ = pictures[0].shape
    codec.pix_fmt, codec.time_base, codec.gop_size = "yuv420p", Fraction(1, 10), 10
    codec.options = {"preset": "ultrafast", "tune": "zerolatency", "slice-max-size": "1200"}
    sequence = 0
    for number, pixels in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = number
        units = b"".join(map(bytes, codec.encode(frame))).replace(b"\0\0\0\1", b"\0\0\1")
        units = units.split(b"\0\0\1")[1:]
        for unit in units:
            last = unit is units[-1]
            head = struct.pack("!BBHII", 0x80, 96 | last << 7, sequence, 9000 * number, 1)
            yield number, head + unit
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
        elif mood not in ("", "stutter"):
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
            self._play(*self.server.show, mood)  # type: ignore[attr-defined]
            raise ConnectionResetError

    def _play(self, pictures: Sequence[NDArray[np.uint8]], period_s: float, mood: str) -> None:
        before = 0
        for number, packet in packets(pictures):
            if mood == "stutter" and number == FRAMES - 5:
                self.rfile.read(1)
            self._send(struct.pack("!cBH", b"$", 0, len(packet)) + packet)
            if number > before:
                time.sleep(period_s)
            before = number

    def _send(self, content: bytes) -> None:
        self.wfile.write(content)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, mood: str, port: int, pictures: Sequence[NDArray[np.uint8]], period_s: float) -> None:
        super().__init__(("127.0.0.1", port), Camera)
        self.mood, self.show = mood, (pictures, period_s)


@contextmanager
def camera(
    mood: str = "", port: int = 0, pictures: Sequence[NDArray[np.uint8]] = GREYS, period_s: float = 0.01
) -> Iterator[str]:
    """Its address, without a password; ``me`` with ``secret`` may look."""
    with Server(mood, port, pictures, period_s) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}/street"
        finally:
            server.shutdown()
            thread.join()
