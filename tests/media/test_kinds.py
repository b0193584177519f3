from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest

from squeezedet.media.kinds import camera, encoded_address, is_camera, is_numbered, is_video, numbered, without_password

HEADS = {
    "mp4": b"\0\0\0\x20ftypisom",
    "mkv": b"\x1aE\xdf\xa3",
    "avi": b"RIFF\0\0\0\0AVI LIST",
    "ts": b"G" + bytes(187) + b"G",
    "mpg": b"\0\0\x01\xba",
    "flv": b"FLV\x01",
    "ogv": b"OggS",
}


@pytest.mark.parametrize("kind", HEADS)
def test_unknown_suffix_is_told_by_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "upload.tmp"
    path.write_bytes(HEADS[kind] + bytes(300))
    assert is_video(path)


@pytest.mark.parametrize("head", [b"", b"\xff\xd8\xff\xe0", b"RIFF\0\0\0\0WEBP", b"\0\0\0\x20ftypavif", b"GIF89a"])
def test_what_is_no_video(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "upload"
    path.write_bytes(head)
    assert not is_video(path)


def test_a_known_suffix_decides(tmp_path: Path) -> None:
    (tmp_path / "a.JPG").write_bytes(HEADS["mp4"])
    assert not is_video(tmp_path / "a.JPG")
    assert is_video(tmp_path / "missing.MP4")
    assert not is_video(tmp_path / "missing")


def test_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_camera("0")
    assert is_camera("/dev/video2")
    assert is_camera("/dev/v4l/by-id/usb-Camera-video-index0")
    assert not is_camera("-1")
    assert not is_camera("²")
    (tmp_path / "0").touch()
    assert not is_camera("0")


def test_cameras_of_each_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert camera("1") == ("/dev/video1", "v4l2")
    assert camera("/dev/video1") == ("/dev/video1", "v4l2")
    monkeypatch.setattr("sys.platform", "darwin")
    assert camera("1") == ("1", "avfoundation")


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("f%02d.png", ["f08.png", "f09.png", "f10.png", "f100.png"]),
        ("f%d.png", ["f7.png", "f10.png", "f100.png"]),
        ("%04d.jpg", ["0001.jpg", "0003.jpg"]),
        ("x%d.png", []),
    ],
)
def test_numbered_pictures(tmp_path: Path, pattern: str, wanted: list[str]) -> None:
    for name in ("f08.png", "f100.png", "f09.png", "f10.png", "f7.png", "0003.jpg", "0001.jpg"):
        (tmp_path / name).touch()
    assert is_numbered(str(tmp_path / pattern))
    assert [path.name for path in numbered(str(tmp_path / pattern))] == wanted


def test_names_that_are_no_number_pattern(tmp_path: Path) -> None:
    assert not is_numbered("a.png")
    assert not is_numbered("100%.png")
    assert not is_numbered("%d-%d.png")
    (tmp_path / "%d.png").touch()
    assert not is_numbered(str(tmp_path / "%d.png"))


def test_passwords_are_not_shown() -> None:
    assert without_password("rtsp://me:p@ss@cam:554/x@y") == "rtsp://cam:554/x@y"
    assert without_password("rtsp://cam/x@y") == "rtsp://cam/x@y"
    assert without_password("a@b/c.mp4") == "a@b/c.mp4"


SECRETS = ("#", "/", "?", "@", ":", "%", "&", " ", "%23", "/?#")


@pytest.mark.parametrize("scheme", ["http", "https", "rtsp", "rtsps"])
@pytest.mark.parametrize("sign", SECRETS)
@pytest.mark.parametrize("where", ["user", "password"])
def test_no_sign_of_a_password_shows_it(scheme: str, sign: str, where: str) -> None:
    user, password = (f"ad{sign}min", "Secret") if where == "user" else ("admin", f"pa{sign}Secret")
    for host in ("127.0.0.1:9", "camera.local:554", "camera", "[::1]:554"):
        address = f"{scheme}://{user}:{password}@{host}/stream.mjpg?x=1"
        assert without_password(address) == f"{scheme}://{host}/stream.mjpg?x=1"
        sent = encoded_address(address)
        assert sent.endswith(f"@{host}/stream.mjpg?x=1")
        name, _, word = sent.partition("://")[2].rpartition("@")[0].partition(":")
        if sign != ":" or where == "password":
            assert (unquote(name), unquote(word)) == (unquote(user), unquote(password))


def test_passwords_in_a_query_are_not_shown() -> None:
    for name in ("password", "pwd", "token", "user", "loginpas", "api_key"):
        shown = without_password(f"http://camera/video.cgi?{name}=Secret&channel=1")
        assert shown == f"http://camera/video.cgi?{name}=...&channel=1"
    assert "Secret" not in without_password("rtsp://h:554/user=admin_password=Secret_channel=1.sdp")
    for query in ("size=3", "page=2&id=7", "mapping=p"):
        assert without_password(f"http://a.b/c.jpg?{query}") == f"http://a.b/c.jpg?{query}"


@pytest.mark.parametrize(
    "address",
    [
        "http://cam/x.mjpg?user=me&pass=Secret",
        "http://cam/x.mjpg?u=me&p=Secret",
        "http://cam/x.mjpg?psw=Sec/Secret",
        "http://cam/x.mjpg?pwd=a#Secret",
        "http://cam/x.mjpg?a=1;password=Secret",
        "http://cam/x.mjpg?X-Amz-Signature=Secret&sig=Secret",
        "http://cam:80/x.mjpg?src=rtsp://me:Secret@cam2/y",
        "http://cam:80/x.mjpg?src=rtsp%3A%2F%2Fme%3ASecret%40cam2",
        "http://me@cam/x.mjpg?token=Secret",
        "rtsp://me:Secret@cam/x?password=Secret",
        "rtsp://cam/user/me/pass/Secret",
        "rtsp://cam/user/Secret",
        "rtsp://cam/user/me/Secret/ch1",
        "rtsp://cam/admin/Secret/ch1",
        "rtsp://cam/0/me:Secret/main",
        "rtsp://cam:554/user=admin&password=Secret&channel=1&stream=0.sdp?",
        "rtsp://cam/Token/Secret",
        "https://cam/live/token/Secret/index.m3u8",
        "https://cam/admin/Secret/video.mjpg",
        "rtmp://cam/live/x?key=Secret",
    ],
)
def test_no_place_of_a_password_shows_it(address: str) -> None:
    shown = without_password(address)
    assert "Secret" not in shown
    assert "cam" in shown


def test_paths_of_pictures_are_shown() -> None:
    for address in ("https://a.b/user/holidays/x.jpg", "https://a.b/wiki/File:x.jpg", "rtsp://cam:554/Streaming/101"):
        assert without_password(address) == address


def test_pages_with_an_at_sign_have_no_password() -> None:
    for address in ("http://a.b/@c.jpg", "http://a.b:8080/x@2x.png", "http://a.b:8080/x@h.c/y.jpg"):
        assert without_password(address) == encoded_address(address) == address
