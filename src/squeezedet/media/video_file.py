"""One video file, written frame by frame through PyAV."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.media.output import whole_file
from squeezedet.media.video import need_av

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
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
        if path.suffix.lower() not in FORMATS:
            raise UsageError(f"{path}: a video is written as {', '.join(FORMATS)}")
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
        temporary = self._stack.enter_context(whole_file(self.path))
        form = FORMATS[self.path.suffix.lower()]
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
