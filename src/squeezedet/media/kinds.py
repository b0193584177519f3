"""What a name stands for: an image, a video, a live stream, a camera, numbered pictures."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import quote

from squeezedet.files import IMAGE_SUFFIXES, open_regular

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".f4v", ".3gp", ".3g2", ".mkv", ".mk3d", ".webm", ".avi"),
    *(".divx", ".ts", ".mts", ".m2ts", ".m2t", ".trp", ".mpg", ".mpeg", ".mpe", ".m2v", ".vob"),
    *(".flv", ".wmv", ".asf", ".ogv", ".ogm", ".mxf", ".dav", ".mjpeg", ".mjpg", ".h264", ".264"),
    *(".h265", ".265", ".hevc", ".ivf", ".av1", ".y4m", ".nut"),
)
PLAYLIST_SUFFIXES = (".m3u8", ".mpd")
"""Of an http address: a video in parts, or what a camera sends just now."""
LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt")
LIVE_SUFFIXES = (".mjpg", ".mjpeg")
"""Of an http address: a camera's endless picture."""
NUMBER = re.compile(r"%(0?)(\d*)d")
HEAD_BYTES = 400

# ----------------------------------------------------------------- cameras and addresses


def is_camera(name: str) -> bool:
    """``0``, ``1``, ..., or a device such as ``/dev/video0`` or ``/dev/v4l/by-id/...``."""
    if name.startswith(("/dev/video", "/dev/v4l/")):
        return True
    return name.isascii() and name.isdecimal() and not Path(name).exists()


def camera(name: str) -> tuple[str, str]:
    """The device of a camera and the format by which FFmpeg reads it."""
    if sys.platform == "darwin":
        return name, "avfoundation"
    return f"/dev/video{name}" if name.isdecimal() else name, "v4l2"


_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s/?#@:\[\]]+)(?P<port>:\d{1,5})?(?P<rest>[/?#].*)?", re.S)
_HOST_AND_PORT = re.compile(r"[^\s/?#@:]+\.[^\s/?#@:]+:\d{2,5}|[^\s/?#@:]+:(80|443|554|8554|8080)")
_PRIVATE_KEY = (
    r"(?i)((?:[\w-]*(?:pass|pwd|psw|secret|token|auth|sign|key|credential|session|user|usr|login|account)[\w-]*"
    r"|(?<![\w-])(?:u|p|pw|pin|sig|sid))=)"
)
_BEFORE_SECRET = {"pass", "passwd", "password", "pwd", "pw", "psw", "token", "key", "apikey", "secret", "auth", "sid"}
"""Parts of a path behind which a secret stands."""
_BEFORE_USER = {"user", "usr", "username", "login", "account"}
_USERS = {"admin", "administrator", "root", "operator", "guest", "viewer"}


def split_address(name: str) -> tuple[str, str, str]:
    """An address as (scheme, user name and password, the rest); the first is "" for a path.

    The user name and the password may hold any sign, as people write them: ``/``, ``?``, ``#``
    and ``@`` end no address here, where a host follows behind a later ``@``.
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", name)
    if not found:
        return "", "", name
    scheme, rest = found[1].lower(), name[found.end() :]
    first = re.split("[/?#]", rest, maxsplit=1)[0]
    plain = _HOST_AND_PORT.fullmatch(first.rpartition("@")[2]) is not None
    for at in [i for i, sign in enumerate(rest) if sign == "@"][::-1]:
        host = _HOST.fullmatch(rest[at + 1 :])
        inside = at < len(first)
        if host is None and not (inside and "@" not in rest[at + 1 : len(first)]):
            continue
        # An @ behind a sign that ends the host belongs to a password, or to the path of a page.
        numeric = host is not None and re.fullmatch(r"[\d.]+", host["host"])
        address = host is not None and (host["port"] or host["rest"] or numeric)
        if inside or (":" in rest[:at] and not plain and (address or scheme in LIVE_SCHEMES)):
            return scheme, rest[:at], rest[at + 1 :]
    return scheme, "", rest


def without_password(name: str) -> str:
    """An address as it may be shown: user name and password taken out, also of its path and its query."""
    scheme, _, rest = split_address(name)
    if not scheme:
        return name
    path, mark, query = rest.partition("?")
    suffix = Path(path.lower()).suffix
    stream = scheme in LIVE_SCHEMES or suffix in (*LIVE_SUFFIXES, *PLAYLIST_SUFFIXES, *VIDEO_SUFFIXES)
    one = _BEFORE_SECRET | (_USERS if stream else set())
    two = _BEFORE_USER if stream else set()
    host, *parts = path.split("/")
    shown, hidden = [host], 0
    for part in parts:
        secret = hidden > 0 or (scheme in LIVE_SCHEMES and ":" in part)
        shown.append("..." if part and secret else re.sub(_PRIVATE_KEY + ".*", r"\1...", part, flags=re.S))
        hidden = max(hidden - 1, int(part.lower() in one), 2 * (part.lower() in two))
    query = re.sub(_PRIVATE_KEY + "[^&]*", r"\1...", query)
    query = re.sub("=[^&]*(?:@|%40)[^&]*", "=...", query)  # an address with a password of its own
    return f"{name[: len(scheme)]}://{'/'.join(shown)}{mark}{query}"


def encoded_address(name: str) -> str:
    """The address with the signs of its user name and password as a server wants them (``%23``)."""
    scheme, user, rest = split_address(name)
    if not user:
        return name
    parts = user.split(":", 1)
    safe = [re.sub("%(?![0-9A-Fa-f]{2})", "%25", quote(part, "%!$&'()*+,;=")) for part in parts]
    return f"{scheme}://{':'.join(safe)}@{rest}"


# ----------------------------------------------------------------- files


def is_video(path: Path) -> bool:
    """A file is a video by its suffix or, where the suffix says nothing, by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES:
        return suffix in VIDEO_SUFFIXES
    if not path.is_file():
        return False
    with open_regular(path) as file:
        return _starts_video(file.read(HEAD_BYTES))


def _starts_video(head: bytes) -> bool:
    """MP4 and MOV (but no HEIF image), Matroska, AVI, MPEG, FLV, Ogg, ASF, MXF, raw H.26x."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return head[8:12] not in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")
    if head[:4] == b"RIFF":
        return head[8:12] == b"AVI "
    for start, packet in ((0, 188), (4, 192)):  # a transport stream, plain or with time codes
        if head[start : start + 1] == b"G" == head[start + packet : start + packet + 1]:
            return True
    starts = (
        *(b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"FLV\x01", b"OggS", b"DKIF"),
        *(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\x06\x0e\x2b\x34\x02\x05", b"YUV4MPEG2 ", b"DHAV"),
        *(b"\0\0\0\x01\x67", b"\0\0\0\x01\x27", b"\0\0\0\x01\x09", b"\0\0\0\x01\x40\x01"),
    )
    return head.startswith(starts)


# ----------------------------------------------------------------- numbered pictures


def is_numbered(name: str) -> bool:
    """The last part of the path holds one ``%d`` or ``%06d``, and no file is called that."""
    return len(NUMBER.findall(Path(name).name)) == 1 and not Path(name).exists()


def numbered(pattern: str) -> list[Path]:
    """The files behind a pattern such as ``frames/%06d.jpg``, by their numbers.

    Numbers may be missing; as in C, ``%06d`` is six digits or more and ``%d`` any number
    without leading zeros. No other sign of the pattern has a meaning.
    """
    path = Path(pattern)
    zero, width = NUMBER.findall(path.name)[0]
    before, after = (re.escape(part) for part in re.split(NUMBER.pattern, path.name)[::3])
    wanted = re.compile(f"{before}(\\d+){after}")
    found = []
    for file in path.parent.iterdir():
        matched = wanted.fullmatch(file.name)
        if matched and matched[1] == f"{int(matched[1]):{zero}{width}d}".strip():
            found.append((int(matched[1]), file))
    return [file for _, file in sorted(found)]
