"""Frames of video files, streams and cameras, and video files of frames, through PyAV."""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import DataError, MissingExtraError, SourceEndedError, SqueezeDetError, UsageError
from squeezedet.files import open_regular, replacing
from squeezedet.media.images import MAX_PIXELS, Frame, FrameTime
from squeezedet.media.kinds import camera, encoded_address, is_camera, without_password
from squeezedet.media.prefetch import latest
from squeezedet.text import counted

if TYPE_CHECKING:
    from PIL.Image import Image

# PyAV's own types change from version to version.
Container: TypeAlias = Any
Stream: TypeAlias = Any
Packet: TypeAlias = Any
Picture: TypeAlias = Any

SILENCE_S = 10.0
"""A server or camera that sends nothing for longer is given up."""
MAX_PACE_S = 1.0
"""A frame of a live playlist waits no longer for its time."""
FALLBACK_RATE = 25.0
"""Frames a second of a file that holds no time stamps and no rate."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Before a source that broke off is opened again; doubled for each further attempt."""
FILE_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,mjpeg,"
    "flv,asf,ogg,mxf,ivf,av1,obu,yuv4mpegpipe,nut,dhav,dv"
)
"""FFmpeg's names of formats that hold a video in themselves. Others (ffconcat, playlists) are
texts that name further files."""
HTTP_PROTOCOLS = "http,https,httpproxy,tcp,tls,crypto"
LIVE_PROTOCOLS = "rtsp,rtmp,rtmps,rtmpt,rtp,srtp,udp,tcp,tls,srt,http,https,crypto"
LIVE_FORMATS = f"{FILE_FORMATS},rtsp,rtp,sdp,live_flv,rtp_mpegts,mpjpeg"


def need_av() -> Any:
    """PyAV; a MissingExtraError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("video", "video") from error
    return av


# ----------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """How a live source that breaks off is opened again."""

    say: Callable[[str], object]  # takes a sentence about each break
    attempts: int = 10  # in a row without a frame; then it is given up
    stall_s: float = SILENCE_S  # no frame for longer counts as breaking off
    patient: bool = False  # wait also for an address or a camera that has not given a frame yet


def read_video(
    name: str, *, live: bool = False, max_pixels: int = MAX_PIXELS, reconnect: Reconnect | None = None
) -> Generator[Frame, None, None]:
    """Decode a video frame by frame, upright and with the time of each frame.

    Of a file every frame comes, however long that takes. Of what is live only the newest comes,
    and ``Frame.moment`` tells how many were dropped; a playlist (HLS) without an end is live.

    Args:
        name: path, address, or a camera: ``0``, ``/dev/video0``.
        live: the source does not wait.
        max_pixels: a video of larger frames is refused.
        reconnect: what is live is opened again when it breaks off; times and numbers go on.

    Raises:
        DataError: it cannot be read, breaks off, or (but for live ones) some of it is damaged;
            raised after the frames that could be read.
        SourceEndedError: a camera or a live address sends no more, which it should not do.
        MissingExtraError: PyAV is not installed.
    """
    if reconnect is None:
        yield from _read_once(name, live, max_pixels)
        return
    newest: FrameTime | None = None
    attempt, seen_s, broken = 0, 0.0, reconnect.patient and live
    while True:
        try:
            again = _read_once(name, live, max_pixels, reconnect.stall_s, again=newest is not None)
            for frame in _continued(again, newest, seen_s):
                newest, seen_s, attempt = frame.moment, time.monotonic(), 0
                yield frame
            return
        except DataError as error:
            broken = broken or isinstance(error, SourceEndedError)
            if not broken or not reconnect.attempts:
                raise
            if attempt == reconnect.attempts:
                raise SourceEndedError(f"{error}; given up after {counted(attempt, 'attempt')}") from error
            attempt += 1
            pause_s = _pause_s(attempt)
            reconnect.say(f"{error}; opened again in {pause_s:g} s (attempt {attempt} of {reconnect.attempts})")
            time.sleep(pause_s)


def _pause_s(attempt: int) -> float:
    return min(FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 60), LONGEST_PAUSE_S)


def _continued(frames: Iterable[Frame], last: FrameTime | None, seen_s: float) -> Iterator[Frame]:
    """The frames of a source that was opened again, behind the last one that came before."""
    away_s = 0.0
    for frame in frames:
        moment = frame.moment
        if last is None or moment is None:
            yield frame
            continue
        notes = frame.notes
        if not away_s:
            away_s = max(time.monotonic() - seen_s, 0.001)
            notes = (*notes, f"{frame.name}: frames come again after {away_s:.1f} s")
        yield replace(frame, moment=moment.after(last, away_s), notes=notes)


def _read_once(
    name: str, live: bool, max_pixels: int, stall_s: float | None = None, again: bool = False
) -> Generator[Frame, None, None]:
    """As ``read_video``, until the source ends."""
    reader = _Reader(need_av(), name, live, max_pixels, again)
    # One for all frames: each keeps tables of its own, which take memory and time.
    to_rgb = reader.av.video.reformatter.VideoReformatter()
    start = time.perf_counter()
    pictures = reader.pictures()
    for picture, moment in _newest(pictures, reader, stall_s) if live else _all(pictures, reader, stall_s):
        if reader.live:
            start = time.perf_counter()  # waiting for a camera is no work
        pixels = to_rgb.reformat(picture, format="rgb24").to_ndarray()
        pixels = _upright(pixels, picture)
        load_ms = (time.perf_counter() - start) * 1000
        yield Frame(pixels, reader.shown, load_ms, moment=moment)
        start = time.perf_counter()


_Timed: TypeAlias = tuple[Picture, FrameTime]


def _newest(pictures: Generator[_Timed, None, None], reader: _Reader, stall_s: float | None) -> Iterator[_Timed]:
    try:
        for (picture, moment), dropped in latest(pictures, stall_s):
            yield picture, replace(moment, dropped=dropped)
    except TimeoutError as error:
        raise SourceEndedError(f"{reader.shown}: no frame for {stall_s:g} seconds") from error


def _all(pictures: Generator[_Timed, None, None], reader: _Reader, stall_s: float | None) -> Iterator[_Timed]:
    """Every picture; of a playlist that turns out to be live, the newest ones."""
    with ExitStack() as stack:
        stack.enter_context(closing(pictures))
        for timed in pictures:
            yield timed
            if reader.live:
                stack.pop_all()  # from now on the thread that reads closes them
                yield from _newest(pictures, reader, stall_s)


def _upright(pixels: NDArray[np.uint8], picture: Picture) -> NDArray[np.uint8]:
    """The picture as its display matrix says, if that turns by right angles or mirrors."""
    data = picture.side_data.get("DISPLAYMATRIX")
    if data is None:
        return pixels
    # Column vectors of (x, y): (a, b) is where the source's x axis goes, (c, d) its y axis.
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5]
    if abs(int(a)) >= abs(int(b)):
        flip_x, flip_y = a < 0, d < 0
    else:
        pixels = pixels.transpose(1, 0, 2)
        flip_x, flip_y = c < 0, b < 0
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


class _Reader:
    """Opens one source, decodes what can be decoded and counts what cannot.

    Whether it is ``live`` is known for sure when the first picture is there.
    """

    def __init__(self, av: Any, name: str, live: bool, max_pixels: int, again: bool = False) -> None:
        self.av, self.live, self._again = av, live, again
        self.shown = without_password(name)
        self._name, self._max_pixels = name, max_pixels
        self._damaged = 0  # packets that gave no picture, pictures that the decoder mended
        self._break = ""

    def pictures(self) -> Generator[_Timed, None, None]:
        """Every picture and its moment; the errors are those of ``read_video``."""
        start = time.monotonic()
        try:
            container = _open(self.av, self._name)
        except self.av.FFmpegError as error:
            waited_s = time.monotonic() - start if "://" in self._name else 0
            raise DataError(f"{self.shown}: {_refused(error, self._name, waited_s)}") from error
        with container:
            stream = container.streams.best("video")
            if stream is None:
                raise DataError(f"{self.shown}: holds no video")
            if container.format.name == "hls":
                if self._again and container.duration:  # the same pictures once more
                    raise SourceEndedError(f"{self.shown}: the playlist has come to its end")
                self.live |= not container.duration
            clock = _Clock(container, stream, self.live)
            paced = self.live and container.format.name == "hls"
            number, begun_s = 0, time.monotonic()
            for number, picture in enumerate(self._decode(container, stream), start=1):
                self._check_size(picture)
                time_s = clock(picture)
                if paced:  # a segment comes at once; shown at its own pace, few of its frames are dropped
                    time.sleep(min(max(begun_s + time_s - time.monotonic(), 0), MAX_PACE_S))
                wall_time = datetime.now().astimezone() if self.live else None
                moment = FrameTime(time_s, number - 1, 0, self._damaged, wall_time)
                yield picture, moment
        self._complain(number)

    def _check_size(self, picture: Picture) -> None:
        if picture.width * picture.height > self._max_pixels:
            raise DataError(
                f"{self.shown}: frames of {picture.width}x{picture.height} pixels are more than "
                f"`max_pixels`, {self._max_pixels}"
            )

    def _decode(self, container: Container, stream: Stream) -> Iterator[Picture]:
        """All pictures, mended ones too."""
        for packet in self._demux(container, stream):
            try:
                pictures = packet.decode()
            except self.av.FFmpegError:
                self._damaged += 1
                continue
            for picture in pictures:
                self._damaged += picture.is_corrupt
                yield picture

    def _demux(self, container: Container, stream: Stream) -> Iterator[Packet]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self.av.FFmpegError as error:
                # So ends Motion JPEG over http, in which nothing says that it is the end.
                self._break = "" if self.live and error.errno == errno.EIO else _reason(error)
                return
            yield packet

    def _complain(self, frames: int) -> None:
        """Say what a user should know at the end.

        Raises:
            DataError: not all is well.
        """
        came = counted(frames, "frame")
        because = f" ({self._break})" if self._break else ""
        if not frames:
            why = self._break or "holds no frame that can be decoded"
            raise DataError(f"{self.shown}: {why}")
        if self.live:
            if "://" in self._name or is_camera(self._name):
                raise SourceEndedError(f"{self.shown}: the stream ended after {came}{because}")
            return
        if self._break:
            raise DataError(f"{self.shown}: breaks off after {came}{because}")
        if "://" not in self._name:
            _check_whole(Path(self._name), came)
        if self._damaged:
            raise DataError(f"{self.shown}: {self._damaged} of its frames are damaged")


def _open(av: Any, name: str) -> Container:
    """Open a camera, an address or a file; a file can name no other places to read from."""
    text = {"metadata_encoding": "utf-8", "metadata_errors": "replace"}
    if is_camera(name):
        device, form = camera(name)
        return av.open(device, format=form, timeout=SILENCE_S, **text)
    if "://" not in name:
        if _is_device(name):
            raise DataError(f"{name}: is not a regular file but a device")
        options = {"protocol_whitelist": "file", "format_whitelist": FILE_FORMATS}
        return av.open(f"file:{name}", container_options=options, **text)
    scheme = name.partition("://")[0].lower()
    if scheme in ("http", "https"):
        formats = f"{FILE_FORMATS},mpjpeg,hls,dash,webvtt"
        options = {"protocol_whitelist": HTTP_PROTOCOLS, "format_whitelist": formats}
    else:
        options = {"protocol_whitelist": LIVE_PROTOCOLS, "format_whitelist": LIVE_FORMATS}
        if scheme.startswith("rtsp"):
            options["rtsp_flags"] = "prefer_tcp"
    address = encoded_address(name)
    return av.open(address, container_options=options, timeout=SILENCE_S, **text)


def _is_device(name: str) -> bool:
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError):  # FFmpeg says what is wrong
        return False
    own = name.startswith(("/dev/fd/", "/dev/stdin"))
    return not own and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode))


def _refused(error: Any, name: str, waited_s: float) -> str:
    """Why a source cannot be opened, in words."""
    if waited_s >= SILENCE_S:  # FFmpeg calls silence by many names
        return _silent()
    if "://" in name and error.errno == errno.EIO:  # so it says that there is no such host
        return "cannot be reached; is the name of the host right?"
    if "://" not in name and error.errno == errno.EINVAL:  # a format that is not allowed
        return "not a video that can be read"
    return _reason(error)


def _silent() -> str:
    return f"no answer within {SILENCE_S:g} seconds"


def _reason(error: Any) -> str:
    known = {
        "FileNotFoundError": "no such file or device",
        "PermissionError": "permission denied",
        "InvalidDataError": "not a video that can be read",
        "EOFError": "not a video that can be read",
        "ExitError": _silent(),
        "ConnectionRefusedError": "nobody answers at this address",
        "HTTPUnauthorizedError": "wants a user name and password, or other ones than these "
        "(rtsp://user:password@host/...)",
        "HTTPForbiddenError": "the server refuses it (403)",
        "HTTPNotFoundError": "the server has nothing at this address (404)",
        "HTTPServerError": "the server fails (an error of 5xx)",
    }
    return known.get(type(error).__name__) or error.strerror or str(error)


# ----------------------------------------------------------------- time


class _Clock:
    """Seconds since the first picture, always rising: by time stamps, the rate, or arrival.

    Recordings joined end to end begin their time stamps anew, and those of transport streams
    (33 bits of 1/90,000 s) begin anew every 26.5 hours: then the time goes on by one frame.
    """

    DISCONTINUITY_S = 10.0
    """A longer jump ahead is one of the time stamps, in formats whose stamps may jump."""

    def __init__(self, container: Container, stream: Stream, live: bool) -> None:
        from av.format import Flags

        rate = float(stream.average_rate or stream.guessed_rate or FALLBACK_RATE)
        flags = Flags(container.format.flags)
        # Such formats (MJPEG over http, bare H.264) have made-up time stamps.
        self._by_arrival = live and bool(flags & Flags.no_timestamps)
        self._may_jump = bool(flags & Flags.ts_discont)
        self._period_s = 1 / rate
        self._stamp_s: float | None = None  # of the last picture
        self._now_s = 0.0

    def __call__(self, picture: Picture) -> float:
        if self._by_arrival:
            stamp_s = time.monotonic()
        elif picture.time is not None:
            stamp_s = float(picture.time)
        else:
            stamp_s = (self._stamp_s or 0.0) + (self._stamp_s is not None) * self._period_s
        if self._stamp_s is not None:
            step_s = stamp_s - self._stamp_s
            jumps = step_s < -self._period_s or (self._may_jump and step_s > self.DISCONTINUITY_S)
            if jumps:
                step_s = self._period_s
            elif 0 < step_s <= 1:
                self._period_s = step_s
            # Two pictures of one time stamp, or a little out of order: no time is lost or won.
            least_s = min(self._period_s / 2, 0.001)
            self._now_s += max(step_s, least_s)
        self._stamp_s = stamp_s
        return self._now_s


# ----------------------------------------------------------------- whole files


def _check_whole(path: Path, came: str) -> None:
    """Raises a DataError if a file that was read to its end is cut short, by its container, or holds a second movie."""
    try:
        if not path.is_file():
            return
        size = path.stat().st_size
        with open_regular(path, what="video") as file:
            length, movies = _announced(file, size)
    except (OSError, ValueError, IndexError):  # IndexError: what announces it is cut off, or far behind
        return
    if length > size:
        raise DataError(f"{path}: breaks off after {came}; {length - size:,} bytes are missing at its end")
    if movies > 1:
        raise DataError(f"{path}: holds {movies} movies one behind the other, and only the first was read")


def _announced(file: BinaryIO, size: int) -> tuple[int, int]:
    """The length that the container itself announces, 0 if it does not, and how many movies."""
    head = file.read(4096)
    if head[:4] == b"\x1aE\xdf\xa3":
        return _matroska_length(head), 1
    if head[:4] == b"RIFF":
        return _riff_length(file, size), 1
    if head[:4] in (b"\x30\x26\xb2\x75", b"FLV\x01"):
        length = _asf_length(head) if head[:1] == b"\x30" else _flv_length(head)
        if not 0 < length < size:
            return length, 1
        file.seek(length)  # FFmpeg reads no further than the first of several
        return length, 1 + (file.read(4) == head[:4])
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _boxes(file, size)
    return 0, 1


def _asf_length(head: bytes) -> int:
    """The file size in the header's file properties; 0 if it was never finished ("broadcast")."""
    at = head.find(b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65")
    unfinished = at < 0 or int.from_bytes(head[at + 88 : at + 92], "little") & 1
    return 0 if unfinished else int.from_bytes(head[at + 40 : at + 48], "little")


def _flv_length(head: bytes) -> int:
    """The file size in the first script tag, where its writer left one."""
    value = head.partition(b"filesize\x00")[2][:8]
    length = float(np.frombuffer(value, ">f8")[0]) if len(value) == 8 else 0.0
    return int(length) if 0 < length < 1e15 else 0


def _matroska_length(head: bytes) -> int:
    """Where the segment ends."""

    def element(at: int) -> tuple[int, int | None]:
        """Where its content begins, and how long that is."""
        at += 4  # both names have four bytes
        width = 9 - head[at].bit_length()
        value = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
        return at + width, None if value == (1 << 7 * width) - 1 else value

    start, length = element(0)
    segment = start + (length or 0)
    if length is None or head[segment : segment + 4] != b"\x18S\x80g":
        return 0
    start, length = element(segment)
    return 0 if length is None else start + length


def _riff_length(file: BinaryIO, size: int) -> int:
    """Where the last RIFF chunk ends: large AVI files have several."""
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF":
            break
        if length < 12 or length >= 0xFFFFFFF0:  # never finished
            return 0
        at += 8 + length
    return at


def _boxes(file: BinaryIO, size: int) -> tuple[int, int]:
    """Where the last box of an MP4 ends, and how many movies there are."""
    at = movies = 0
    while at < size:
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if len(head) < 8 or not kind.isalnum():
            break
        movies += kind == b"moov"
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: to the end of the file
            return size, movies
        at += length
    return at, movies


# ----------------------------------------------------------------- writing

VIDEO_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Containers in which every frame has a time of its own."""
CODECS = {"libx264": "H.264 (libx264)", "libopenh264": "H.264 (libopenh264)", "mpeg4": "MPEG-4 part 2 (mpeg4)"}
# The network needs the cores: x264 takes the least work that it can, in the thread that writes.
OPTIONS = {"libx264": {"preset": "ultrafast", "crf": "23", "threads": "1"}, "libopenh264": {}, "mpeg4": {"qscale": "4"}}
TIME_BASE = Fraction(1, 60_000)
"""Seconds a tick: exact for 10, 25, 30, 50, 60 and 30000/1001 frames a second, and below the
65,535 ticks a second that MPEG-4 part 2 allows."""


class VideoFile:
    """Writes pictures with their times; the file appears, whole, when the block ends well.

    The first picture gives the size, an odd side one pixel more: its last row or column twice,
    because colors are stored for two by two pixels. Later pictures of another size are fitted
    into it with their shape kept. A time that is not after the one before becomes the next tick.

    Raises:
        UsageError: the suffix is none of ``VIDEO_FORMATS``.
        MissingExtraError: PyAV is not installed.
        SqueezeDetError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in VIDEO_FORMATS:
            raise UsageError(f"{path}: a video is written as {', '.join(VIDEO_FORMATS)}")
        self._av = need_av()
        self.path = path
        self.frames = 0
        self._codec = _first_codec(self._av)
        self._stack = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._ticks = self._period = 0

    def __enter__(self) -> Self:
        return self

    def write(self, picture: Image, time_s: float) -> None:
        try:
            if self._container is None:
                self._open(picture.width, picture.height)
            ticks = max(round(time_s / TIME_BASE), 0)
            if self.frames:
                ticks = max(ticks, self._ticks + 1)
                self._period = ticks - self._ticks
            self._ticks = ticks
            size = (self._stream.width, self._stream.height)
            frame = self._av.VideoFrame.from_ndarray(_fitted(picture, size), format="rgb24")
            frame.pts, frame.time_base, frame.duration = ticks, TIME_BASE, self._period
            self._mux(frame)
        except self._av.FFmpegError as error:
            raise self._cannot(error) from error
        self.frames += 1

    def describe(self) -> str:
        """What was written, in words."""
        return f"{self.path}: {counted(self.frames, 'frame')}, {CODECS[self._codec]}"

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if self._container is not None:
                if kind is None:
                    self._mux(None)
                self._container.close()
        except self._av.FFmpegError as failed:
            raised = self._cannot(failed)
            self._stack.__exit__(type(raised), raised, None)
            raise raised from failed
        self._stack.__exit__(kind, error, trace)

    def _open(self, width: int, height: int) -> None:
        temporary = self._stack.enter_context(replacing(self.path))
        form = VIDEO_FORMATS[self.path.suffix.lower()]
        self._container = self._av.open(str(temporary), "w", format=form)
        stream = self._container.add_stream(self._codec, options=OPTIONS[self._codec])
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        self._stream = stream

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            if frame is None and self._period:
                packet.duration = self._period  # the last frame stays as long as the one before
            self._container.mux(packet)

    def _cannot(self, error: Any) -> SqueezeDetError:
        return SqueezeDetError(f"{self.path}: cannot be written ({error.strerror or error})")


def _first_codec(av: Any) -> str:
    for name in CODECS:
        try:
            av.codec.Codec(name, "w")
        except ValueError:  # PyAV's UnknownCodecError
            continue
        return name
    raise SqueezeDetError(f"PyAV {av.__version__} holds no encoder of {', '.join(CODECS)}")


def _fitted(picture: Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) pixels of the video's size."""
    from PIL import ImageOps

    width, height = size
    if width - picture.width not in (0, 1) or height - picture.height not in (0, 1):
        picture = ImageOps.pad(picture, size)
    pixels = np.asarray(picture)
    more = ((0, height - picture.height), (0, width - picture.width), (0, 0))
    return np.pad(pixels, more, mode="edge") if any(map(any, more)) else pixels
