"""What a name stands for: an image, a video, a live stream, a camera, numbered pictures."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from squeezedet.files import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"),
    *(".flv", ".wmv", ".3gp", ".ogv", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".hevc"),
)
LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt")
LIVE_SUFFIXES = (".mjpg", ".mjpeg")
"""Of an http address: a camera's endless picture."""
NUMBER = re.compile(r"%(0?)(\d*)d")
HEAD_BYTES = 200


def is_camera(name: str) -> bool:
    """``0``, ``1``, ..., or a device such as ``/dev/video0``."""
    if name.startswith("/dev/video"):
        return True
    return name.isascii() and name.isdecimal() and not Path(name).exists()


def camera(name: str) -> tuple[str, str]:
    """The device of a camera and the format by which FFmpeg reads it."""
    if sys.platform == "darwin":
        return name, "avfoundation"
    return f"/dev/video{name}" if name.isdecimal() else name, "v4l2"


def without_password(name: str) -> str:
    """An address as it may be shown: user name and password taken out."""
    return re.sub(r"^([a-zA-Z0-9+.-]+://)[^/?#]*@", r"\1", name)


def is_video(path: Path) -> bool:
    """A file is a video by its suffix or, where the suffix says nothing, by its first bytes.

    Raises:
        OSError: it cannot be looked into.
    """
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES:
        return suffix in VIDEO_SUFFIXES
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _starts_video(file.read(HEAD_BYTES))


def _starts_video(head: bytes) -> bool:
    """MP4 and MOV (but no HEIF image), Matroska, AVI, transport and program streams, FLV, Ogg."""
    if head[4:8] == b"ftyp":
        return head[8:12] not in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")
    if head[:4] == b"RIFF":
        return head[8:12] == b"AVI "
    if head[:1] == b"G" and head[188:189] == b"G":
        return True
    starts = (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"FLV\x01", b"OggS")
    return head.startswith(starts)


def numbered(pattern: str) -> list[Path]:
    """The files behind a pattern such as ``frames/%06d.jpg``, by their numbers.

    Numbers may be missing; as in C, ``%06d`` is six digits or more and ``%d`` any number
    without leading zeros.

    Raises:
        OSError: the folder cannot be listed.
    """
    path = Path(pattern)
    before, after = (re.escape(part) for part in _parts(path.name))
    zero, width = NUMBER.findall(path.name)[0]
    wanted = re.compile(f"{before}(\\d+){after}")
    found = []
    for file in path.parent.iterdir():
        matched = wanted.fullmatch(file.name)
        if matched and matched[1] == f"{int(matched[1]):{zero}{width}d}".strip():
            found.append((int(matched[1]), file))
    return [file for _, file in sorted(found)]


def is_numbered(name: str) -> bool:
    """The last part of the path holds one ``%d`` or ``%06d``, and no file is called that."""
    return len(NUMBER.findall(Path(name).name)) == 1 and not Path(name).exists()


def _parts(name: str) -> tuple[str, str]:
    """What stands before and after the number."""
    matched = NUMBER.search(name)
    assert matched is not None  # noqa: S101 - is_numbered said so
    return name[: matched.start()], name[matched.end() :]
