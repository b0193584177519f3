"""Frames of video files, streams and cameras, through PyAV."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import DataError, MissingExtraError, SqueezeDetError, UsageError
from squeezedet.files import replacing
from squeezedet.media.images import MAX_PIXELS, Frame, FrameTime
from squeezedet.media.kinds import camera, is_camera, without_password

if TYPE_CHECKING:
    from PIL.Image import Image


# ---- newest: The newest item of a source that does not wait for who takes from it.

T = TypeVar("T")

PATIENCE_S = 1.0
"""How long the end waits for a source that is in the middle of an item."""


class LatestFrame(Generic[T]):
    """Takes from a source as fast as it gives, in a thread, and keeps only the newest item.

    >>> for item, dropped in Newest(camera):  # doctest: +SKIP
    ...     work(item)

    What the source raises is raised after its last item.

    Args:
        source: its items are taken in another thread.
    """

    def __init__(self, source: Generator[T, None, None]) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._waiting: list[T] = []  # the newest item, if nobody took it
        self._dropped = 0
        self._ended = self._stopped = False
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[tuple[T, int]]:
        """Each item, and how many were dropped until then."""
        thread = threading.Thread(target=self._take, name="newest frame", daemon=True)
        thread.start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._ended)
                    if not self._waiting:
                        break
                    item, dropped = self._waiting.pop(), self._dropped
                yield item, dropped
            if self._error is not None:
                raise self._error
        finally:
            self._stopped = True
            thread.join(PATIENCE_S)

    def _take(self) -> None:
        try:
            with closing(self._source) as source:  # what is open is closed by its own thread
                for item in source:
                    with self._changed:
                        self._dropped += len(self._waiting)
                        self._waiting[:] = [item]
                        self._changed.notify()
                    if self._stopped:
                        break
        except BaseException as error:  # whatever it is, it belongs to who takes
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()


# ---- video: Frames of video files, streams and cameras, through PyAV.

# PyAV's own types change from version to version.
Container: TypeAlias = Any
Stream: TypeAlias = Any
Packet: TypeAlias = Any
Picture: TypeAlias = Any

SILENCE_S = 10.0
"""A server or camera that sends nothing for longer is given up."""
FALLBACK_RATE = 25.0
"""Frames a second of a file that holds no time stamps and no rate."""


def need_av() -> Any:
    """PyAV.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("video", "video") from error
    return av


def read_video(
    name: str, *, live: bool = False, max_pixels: int = MAX_PIXELS
) -> Generator[Frame, None, None]:
    """Decode a video frame by frame, upright and with the time of each frame.

    Of a file every frame comes, however long that takes. Of what is live only the newest comes,
    and ``Frame.moment`` tells how many were dropped.

    Args:
        name: path, address, or a camera: ``0``, ``/dev/video0``.
        live: the source does not wait.
        max_pixels: a video of larger frames is refused.

    Raises:
        DataError: it cannot be read, breaks off, or (but for live ones) some of it is damaged;
            raised after the frames that could be read.
        MissingExtraError: PyAV is not installed.
    """
    shown = without_password(name)
    pictures = _pictures(name, shown, live, max_pixels)
    # One for all frames: each keeps tables of its own, which take memory and time.
    to_rgb = need_av().video.reformatter.VideoReformatter()
    start = time.perf_counter()
    for picture, moment in _newest(pictures) if live else pictures:
        if live:
            start = time.perf_counter()  # waiting for a camera is no work
        pixels = to_rgb.reformat(picture, format="rgb24").to_ndarray()
        pixels = _upright(pixels, picture)
        yield Frame(pixels, shown, (time.perf_counter() - start) * 1000, moment=moment)
        start = time.perf_counter()


def _newest(
    pictures: Generator[tuple[Picture, FrameTime], None, None],
) -> Iterator[tuple[Picture, FrameTime]]:
    for (picture, moment), dropped in LatestFrame(pictures):
        yield picture, replace(moment, dropped=dropped)


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


# ------------------------------------------------------------------ reading


def _pictures(
    name: str, shown: str, live: bool, max_pixels: int
) -> Generator[tuple[Picture, FrameTime], None, None]:
    """Every picture and its moment; the errors are those of ``read_video``."""
    av = need_av()
    start = time.monotonic()
    try:
        container = _open(av, name)
    except av.FFmpegError as error:
        waited_s = time.monotonic() - start if "://" in name else 0
        raise DataError(f"{shown}: {_refused(error, name, waited_s)}") from error
    with container:
        stream = container.streams.best("video")
        if stream is None:
            raise DataError(f"{shown}: holds no video")
        reader = _Reader(av, container, stream, live)
        clock = _Clock(container, stream, live)
        for number, picture in enumerate(reader.pictures()):
            if picture.width * picture.height > max_pixels:
                raise DataError(
                    f"{shown}: frames of {picture.width}x{picture.height} pixels are more than "
                    f"the limit of {max_pixels}; raise it with --max-pixels"
                )
            moment = FrameTime(clock(picture, number), number, damaged=reader.damaged)
            yield picture, moment
        complaint = reader.complaint()
        if complaint:
            raise DataError(f"{shown}: {complaint}")


def _open(av: Any, name: str) -> Container:
    """Open a camera, an address or a file; a file can name no other places to read from."""
    if is_camera(name):
        device, form = camera(name)
        return av.open(device, format=form, timeout=SILENCE_S, metadata_errors="replace")
    if "://" not in name:
        options = {"protocol_whitelist": "file"}
        return av.open(f"file:{name}", container_options=options, metadata_errors="replace")
    scheme = name.partition("://")[0].lower()
    options = {"protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto"}
    if scheme not in ("http", "https"):
        options = {"rtsp_flags": "prefer_tcp"} if scheme.startswith("rtsp") else {}
    return av.open(name, container_options=options, timeout=SILENCE_S, metadata_errors="replace")


def _refused(error: Any, name: str, waited_s: float) -> str:
    """Why a source cannot be opened, in words."""
    if waited_s >= SILENCE_S:  # FFmpeg calls silence by many names
        return _silent()
    if "://" in name and error.errno == errno.EIO:  # so it says that there is no such host
        return "cannot be reached; is the name of the host right?"
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


class _Reader:
    """Decodes what can be decoded and counts what cannot.

    Attributes:
        damaged: packets that gave no picture and pictures that the decoder mended.
    """

    def __init__(self, av: Any, container: Container, stream: Stream, live: bool) -> None:
        self.damaged = 0
        self._live = live
        self._av, self._container, self._stream = av, container, stream
        self._packets = 0
        self._pictures = 0
        self._last_s = self._gap_s = 0.0  # the time of the last picture, the longest step
        self._break = ""

    def pictures(self) -> Iterator[Picture]:
        """All pictures, mended ones too."""
        for packet in self._demux():
            try:
                pictures = packet.decode()
            except self._av.FFmpegError:
                self.damaged += 1
                continue
            for picture in pictures:
                self._pictures += 1
                time_s = float(picture.time or 0)
                self._gap_s = max(self._gap_s, time_s - self._last_s)
                self._last_s = time_s
                self.damaged += picture.is_corrupt
                yield picture

    def complaint(self) -> str:
        """What a user should know at the end, "" if all is well."""
        if not self._pictures:
            return self._break or "holds no frame that can be decoded"
        if self._break:
            return f"breaks off after {self._pictures} frames ({self._break})"
        if self._live:
            return ""
        if self._cut():
            return f"breaks off after {self._cut()}"
        return f"{self.damaged} of its frames are damaged" if self.damaged else ""

    def _cut(self) -> str:
        """How much of the announced frames or seconds came, "" if that is all."""
        announced = self._stream.frames
        if announced:
            cut = self._packets < announced
            return f"{self._pictures} of {announced} frames" if cut else ""
        length_s = (self._container.duration or 0) / self._av.time_base
        alone = len(self._container.streams) == 1  # else the length may be that of the sound
        cut = alone and self._last_s + max(length_s / 10, 2 * self._gap_s) < length_s
        return f"{self._last_s:.1f} of {length_s:.1f} s" if cut else ""

    def _demux(self) -> Iterator[Packet]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self._av.FFmpegError as error:
                # So ends Motion JPEG over http, in which nothing says that it is the end.
                closed = self._live and self._pictures and error.errno == errno.EIO
                self._break = "" if closed else _reason(error)
                return
            self._packets += packet.size > 0
            yield packet


class _Clock:
    """Seconds since the first picture: by time stamps, else by the rate, live ones by arrival."""

    def __init__(self, container: Container, stream: Stream, live: bool) -> None:
        from av.format import Flags

        self._rate = float(stream.average_rate or stream.guessed_rate or FALLBACK_RATE)
        self._live = live
        # Such formats (MJPEG over http, bare H.264) have made-up time stamps.
        self._stamped = not Flags(container.format.flags) & Flags.no_timestamps
        self._first: float | None = None

    def __call__(self, picture: Picture, number: int) -> float:
        if picture.time is not None and (self._stamped or not self._live):
            now = float(picture.time)
        else:
            now = time.monotonic() if self._live else number / self._rate
        if self._first is None:
            self._first = now
        return now - self._first


# ---- video_file: One video file, written frame by frame through PyAV.

VIDEO_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Containers in which every frame has a time of its own."""
CODECS = {
    "libx264": "H.264 (libx264)",
    "libopenh264": "H.264 (libopenh264)",
    "mpeg4": "MPEG-4 part 2 (mpeg4)",
}
# The network needs the cores: x264 takes the least work that it can, in the thread that writes.
OPTIONS = {
    "libx264": {"preset": "ultrafast", "crf": "23", "threads": "1"},
    "libopenh264": {},
    "mpeg4": {"qscale": "4"},
}
TIME_BASE = Fraction(1, 60_000)
"""Seconds a tick: exact for 10, 25, 30, 50, 60 and 30000/1001 frames a second, and below the
65,535 ticks a second that MPEG-4 part 2 allows."""


class VideoFile:
    """Writes pictures with their times; the file appears, whole, when the block ends well.

    The first picture gives the size, an odd side one pixel more: its last row or column twice,
    because colours are stored for two by two pixels. Later pictures of another size are fitted
    into it with their shape kept. A time that is not after the one before becomes the next tick.

    Args:
        path: its suffix, one of ``FORMATS``, says what it becomes.
        codecs: encoders, the first that PyAV has is used.

    Attributes:
        frames: how many were written.

    Raises:
        UsageError: the suffix is unknown.
        MissingExtraError: PyAV is not installed.
        SqueezeDetError: the file cannot be written.
    """

    def __init__(self, path: Path, codecs: tuple[str, ...] = tuple(CODECS)) -> None:
        if path.suffix.lower() not in VIDEO_FORMATS:
            raise UsageError(f"{path}: a video is written as {', '.join(VIDEO_FORMATS)}")
        self._av = need_av()
        self.path = path
        self.frames = 0
        self._codec = _first_of(self._av, codecs)
        self._stack = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._ticks = self._period = 0

    def __enter__(self) -> Self:
        return self

    def write(self, picture: Image, time_s: float) -> None:
        """The next frame, which is shown from ``time_s`` on."""
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
        frames = "1 frame" if self.frames == 1 else f"{self.frames} frames"
        return f"{self.path}: {frames}, {CODECS.get(self._codec, self._codec)}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._container is not None:
                if error is None:
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
        stream = self._container.add_stream(self._codec, options=OPTIONS.get(self._codec, {}))
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


def _first_of(av: Any, codecs: tuple[str, ...]) -> str:
    for name in codecs:
        try:
            av.codec.Codec(name, "w")
        except ValueError:  # PyAV's UnknownCodecError
            continue
        return name
    raise SqueezeDetError(f"PyAV {av.__version__} holds no encoder of {', '.join(codecs)}")


def _fitted(picture: Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) pixels of the video's size."""
    from PIL import ImageOps

    width, height = size
    if width - picture.width not in (0, 1) or height - picture.height not in (0, 1):
        picture = ImageOps.pad(picture, size)
    pixels = np.asarray(picture)
    more = ((0, height - picture.height), (0, width - picture.width), (0, 0))
    return np.pad(pixels, more, mode="edge") if any(map(any, more)) else pixels
