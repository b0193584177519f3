"""A server that webhooks are sent to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hook(BaseHTTPRequestHandler):
    """Answers with the codes of ``server.answers``, then 200; keeps what it gets."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((body, self.headers.get("X-Squeezedet-Signature"), self.path))
        self.server.authorization = self.headers.get("Authorization")
        answer = self.server.answers.pop(0) if self.server.answers else 200
        if answer == "hang":
            self.server.released.wait(10)
            return
        code, _, target = str(answer).partition(" ")
        self.send_response(int(code))
        if target:
            self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def hook(*answers: int | str, port: int = 0) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", port), Hook) as server:
        server.got, server.answers, server.released = [], list(answers), threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def address(server: ThreadingHTTPServer, path: str = "secret-path") -> str:
    return f"http://127.0.0.1:{server.server_port}/{path}"
