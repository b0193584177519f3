"""Who may ask: host names, other sites' pages, the token."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from squeezedet.errors import UsageError
from squeezedet.runtime.card import Card
from squeezedet.serving.guard import ServerConfig, accepts, is_loopback, read_token, shows_token

from .running import HeldEngine, Running, detector_of, picture, running

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def guarded(card: Card) -> Iterator[Running]:
    with running(detector_of(card, HeldEngine()), token=TOKEN) as it:
        yield it


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "8.8.8.8", "localhost.evil"])
def test_other_host_names_are_refused(server: Running, host: str) -> None:
    response = httpx.get(f"{server.url}/model", headers={"Host": host})
    assert response.status_code in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8000"])
def test_names_of_this_machine_are_served(server: Running, host: str) -> None:
    assert httpx.get(f"{server.url}/model", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://["])
def test_pages_of_other_sites_are_refused(server: Running, origin: str) -> None:
    response = httpx.post(f"{server.url}/detect", content=b"", headers={"Origin": origin})
    assert response.status_code == 403
    preflight = httpx.options(f"{server.url}/detect", headers={"Origin": origin})
    assert preflight.status_code == 403


def test_the_own_page_is_served(server: Running) -> None:
    response = httpx.get(f"{server.url}/model", headers={"Origin": server.url})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/model", "/metrics", "/docs", "/openapi.json", "/v2", "/v2/models/street", "/x"])
def test_without_the_token(guarded: Running, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        response = httpx.get(guarded.url + path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/v2/health/live", "/v2/health/ready"])
def test_what_needs_no_token(guarded: Running, path: str) -> None:
    assert httpx.get(guarded.url + path).status_code == 200


def test_with_the_token(guarded: Running) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    response = httpx.post(f"{guarded.url}/detect", content=picture(), headers=headers)
    assert response.status_code == 200
    assert response.json()["detections"][0]["class"] == "car"


def test_the_body_of_a_stranger_is_not_read(guarded: Running) -> None:
    response = httpx.post(f"{guarded.url}/detect", content=b"x" * 30_000_000)
    assert response.status_code == 401


def test_the_token_is_compared_whole() -> None:
    assert shows_token(f"bearer {TOKEN} ", TOKEN)
    for shown in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\xe9" * 21, "\ud800"):
        assert not accepts(TOKEN, shown)
    assert not shows_token(f"Basic {TOKEN}", TOKEN) and not shows_token("", TOKEN)


def test_token_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file) == TOKEN


@pytest.mark.parametrize("content", [b"", b"short\n", b"two words of some length", b"\xff" * 20])
def test_bad_token_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="a token is one line"):
        read_token(file)


def test_missing_token_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_token(tmp_path / "none")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "camera.local", ""])
def test_an_open_address_needs_a_token(host: str) -> None:
    with pytest.raises(UsageError, match="`token` is needed"):
        ServerConfig(host=host)
    assert not ServerConfig(host=host, token=TOKEN).loopback


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "::1", "localhost", "LocalHost")))
    assert TOKEN not in repr(ServerConfig(token=TOKEN))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_tls(card: Card, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    trusted = ssl.create_default_context(cafile=str(cert))
    with running(detector_of(card, HeldEngine()), tls_cert=cert, tls_key=key) as server:
        with httpx.Client(verify=trusted, base_url=f"https://localhost:{server.port}") as client:
            for _ in range(2):
                assert client.post("/detect", content=picture()).status_code == 200
        with connect(f"wss://localhost:{server.port}/stream", ssl=trusted) as stream:
            stream.send(picture())
            assert "detections" in str(stream.recv(timeout=30))
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.url)


def test_what_is_no_certificate(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    (tmp_path / "empty").touch()
    for files in ((cert, tmp_path / "empty"), (tmp_path / "none", key), (key, cert)):
        with pytest.raises(UsageError, match=r"`tls_cert` .* not a certificate and its key"):
            ServerConfig(tls_cert=files[0], tls_key=files[1])
    with pytest.raises(UsageError, match="go together"):
        ServerConfig(tls_cert=cert)


@pytest.mark.parametrize("name", ["", "a b", "camera.local:80", "*.local", "http://x"])
def test_bad_host_names(name: str) -> None:
    with pytest.raises(UsageError, match="a host name alone"):
        ServerConfig(allow_hosts=(name,))


def test_names_where_others_can_reach_it() -> None:
    anywhere = ServerConfig(host="0.0.0.0", token=TOKEN)
    named = ServerConfig(host="0.0.0.0", token=TOKEN, allow_hosts=("camera.local",))
    assert anywhere.allows("anything.example")
    assert not named.allows("anything.example")
    assert all(map(named.allows, ("CAMERA.local", "10.0.0.7", "fe80::1", "localhost")))
