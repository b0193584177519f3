from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from squeezedet.errors import DataError
from squeezedet.media.sources import fetch

BODY = b"0123456789" * 100


class Handler(BaseHTTPRequestHandler):
    """Serves each way in which a server can be good or bad, by path."""

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):
            getattr(self, "get_" + self.path.strip("/").partition("?")[0].partition("/")[0])()

    def answer(self, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def get_good(self) -> None:
        self.answer(Content_Type="image/png", Content_Length=str(len(BODY)))
        self.wfile.write(BODY)

    def get_asked(self) -> None:
        self.answer(Content_Type="text/plain; charset=utf-8")
        self.wfile.write(f"{self.path} {self.headers['User-Agent']}".encode())

    def get_missing(self) -> None:
        self.send_error(404)

    def get_camera(self) -> None:
        self.answer(Content_Type="multipart/x-mixed-replace; boundary=x")
        self.endless()

    def get_film(self) -> None:
        self.answer(Content_Type="video/mp4")
        self.endless()

    def get_moved(self) -> None:
        self.answer(302, Location="/good")

    def get_circle(self) -> None:
        self.answer(302, Location="/circle")

    def get_circle2(self) -> None:
        self.answer(302, Location=f"/circle2/{time.monotonic()}")  # never the same twice

    def get_slow_head(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        for _ in range(40):
            self.wfile.write(b"x")
            time.sleep(0.05)

    def get_to_file(self) -> None:
        self.answer(302, Location="file:///etc/passwd")

    def get_to_ftp(self) -> None:
        self.answer(302, Location="ftp://127.0.0.1:1/x.jpg")

    def get_huge(self) -> None:
        self.answer(Content_Length=str(5 * 10**9))
        self.endless()

    def get_endless(self) -> None:
        self.answer()
        self.endless()

    def endless(self) -> None:
        while True:
            self.wfile.write(BODY)
            self.server.sent += len(BODY)

    def get_broken(self) -> None:
        self.answer(Content_Length="5000")
        self.wfile.write(BODY)

    def get_silent(self) -> None:
        self.rfile.read(1)  # until the other side has enough

    def get_trickle(self) -> None:
        self.answer()
        for _ in range(40):
            self.wfile.write(b"x")
            time.sleep(0.05)

    def get_babble(self) -> None:
        self.wfile.write(b"how do you do?\r\n\r\n")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def address(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("no_proxy", "*")
    return f"http://127.0.0.1:{server.server_port}"


def refuses(url: str, **limits: float) -> str:
    """The sentence after the address."""
    with pytest.raises(DataError) as caught:
        fetch(url, **limits)
    sentence = str(caught.value)
    assert sentence.startswith(f"{url}: ")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{url}: ")


def test_body_and_type(address: str) -> None:
    assert fetch(f"{address}/good") == (BODY, "image/png")


def test_redirection_is_followed(address: str) -> None:
    assert fetch(f"{address}/moved") == (BODY, "image/png")


def test_address_is_encoded_and_we_say_who_we_are(address: str) -> None:
    body, content_type = fetch(f"{address}/asked/grüße 1.jpg?w=ä&x=%20#part")
    path, agent = body.decode().split(" ")
    assert path == "/asked/gr%C3%BC%C3%9Fe%201.jpg?w=%C3%A4&x=%20"
    assert agent.startswith("squeezedet/")
    assert content_type == "text/plain"


def test_not_found(address: str) -> None:
    assert refuses(f"{address}/missing") == "the server answers 404 Not Found"


@pytest.mark.parametrize(
    ("path", "says"),
    [("circle", "in a circle"), ("circle2", "in a circle"), ("to_file", "302"), ("to_ftp", "unknown url type: ftp")],
)
def test_redirection_that_is_not_followed(address: str, path: str, says: str) -> None:
    assert says in refuses(f"{address}/{path}")


def test_huge_body_is_refused_when_announced(address: str, server: ThreadingHTTPServer) -> None:
    server.sent = 0
    assert "more than 50 MB" in refuses(f"{address}/huge")
    assert server.sent < 25_000_000  # not even half of what is allowed: nothing was read


def test_endless_body_is_given_up(address: str, server: ThreadingHTTPServer) -> None:
    server.sent = 0
    assert "more than 0.1 MB" in refuses(f"{address}/endless", max_bytes=100_000)
    assert server.sent < 50_000_000


def test_videos_are_told_at_once(address: str, server: ThreadingHTTPServer) -> None:
    server.sent = 0
    assert refuses(f"{address}/camera") == "the server sends a live video: read it with `live`"
    assert refuses(f"{address}/film").startswith("the server sends a video; save it to a file")
    assert server.sent < 25_000_000


def test_body_that_breaks_off(address: str) -> None:
    assert refuses(f"{address}/broken") == "the connection broke off after 1000 of 5000 bytes"


def test_silence(address: str) -> None:
    assert refuses(f"{address}/silent", timeout_s=0.1) == "no answer within 0.1 seconds"


@pytest.mark.slow
@pytest.mark.parametrize("path", ["trickle", "slow_head"])
def test_trickle(address: str, path: str) -> None:
    start = time.monotonic()
    assert refuses(f"{address}/{path}", total_s=0.2) == "not complete after 0.2 seconds"
    assert time.monotonic() - start < 1.5  # the body alone would take two seconds


def test_server_that_speaks_something_else(address: str) -> None:
    assert "does not speak HTTP" in refuses(f"{address}/babble")


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    assert "Connection refused" in refuses("http://127.0.0.1:1/a.jpg")


def test_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    assert refuses("http://nowhere.invalid/a.jpg") == "no such host, or no network"


@pytest.mark.parametrize("url", ["http://", "http:///a.jpg", "http://[::1/a.jpg", "http://a:b:c/"])
def test_malformed_address(url: str) -> None:
    assert refuses(url)
