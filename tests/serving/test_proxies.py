"""The examples of docs/serve.md for Caddy and nginx, with a server behind them."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from squeezedet.runtime.card import Card

from .running import HeldEngine, detector_of, picture, running

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[2] / "docs" / "serve.md"
NAME, TOKEN = "cameras.example.org", "correct-horse-battery"
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CONTEXT.check_hostname, CONTEXT.verify_mode = False, ssl.CERT_NONE
CADDY = "{\n\tadmin off\n\tskip_install_trust\n\tlocal_certs\n\tauto_https disable_redirects\n}\n"
NGINX = "daemon off;\npid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n%s\n}\n"


def example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    assert NAME in found[1]
    assert "127.0.0.1:8000" in found[1]
    return found[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def caddy(folder: Path, port: int, behind: int) -> list[str]:
    text = example("caddy").replace(NAME, f"{NAME}:{port}").replace("127.0.0.1:8000", f"127.0.0.1:{behind}")
    (folder / "Caddyfile").write_text(CADDY + text)
    return ["caddy", "run", "--config", str(folder / "Caddyfile")]


def nginx(folder: Path, port: int, behind: int) -> list[str]:
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={NAME}"]
    subprocess.run([*made, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    text = example("nginx").replace("listen 443", f"listen 127.0.0.1:{port}")
    text = text.replace("/etc/ssl/fullchain.pem", "cert.pem").replace("/etc/ssl/privkey.pem", "key.pem")
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{behind}")
    (folder / "nginx.conf").write_text(NGINX % text)
    return ["nginx", "-p", str(folder), "-c", "nginx.conf"]


@contextmanager
def proxy(command: list[str], folder: Path, port: int) -> Iterator[None]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    home = {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"}
    with subprocess.Popen(command, env=home, cwd=folder, stderr=subprocess.DEVNULL) as process:
        try:
            while not _answers(port):
                assert process.poll() is None
                time.sleep(0.01)
            yield
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    """Whether it has its certificate."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as raw, CONTEXT.wrap_socket(raw, server_hostname=NAME):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("kind", [caddy, nginx])
def test_requests_and_streams_pass(kind: object, card: Card, tmp_path: Path) -> None:
    port = free_port()
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    with running(detector_of(card, HeldEngine()), token=TOKEN, allow_hosts=(NAME,)) as server:
        command = kind(tmp_path, port, server.port)  # type: ignore[operator]
        with proxy(command, tmp_path, port):
            own = {"Host": f"{NAME}:{port}", "Origin": f"https://{NAME}:{port}"}
            with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=CONTEXT) as client:
                sni = {"sni_hostname": NAME}
                ask = {"headers": own, "extensions": sni}
                assert client.get("/", **ask).status_code == 200
                assert client.get("/model", **ask).status_code == 401
                assert client.get("/model", headers=own | bearer, extensions=sni).json()["name"] == "street"
                evil = own | bearer | {"Origin": "https://evil.example"}
                assert client.get("/model", headers=evil, extensions=sni).status_code == 403
                large = client.post("/detect", content=bytes(15_000_000), headers=own | bearer, extensions=sni)
                assert large.status_code == 400  # it came, and is no image
            with (
                socket.create_connection(("127.0.0.1", port)) as raw,
                connect(
                    f"wss://{NAME}:{port}/stream", sock=raw, ssl=CONTEXT, server_hostname=NAME, compression=None
                ) as stream,
            ):
                stream.send(json.dumps({"token": TOKEN}))
                for _ in range(3):
                    stream.send(picture())
                    assert json.loads(stream.recv(timeout=60))["detections"]
