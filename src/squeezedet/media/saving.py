"""Annotated pictures and videos: into one video file, or into a folder, a file for each source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from squeezedet.detections import Detections
from squeezedet.errors import UsageError
from squeezedet.media.images import Frame
from squeezedet.media.kinds import VIDEO_SUFFIXES
from squeezedet.media.output import UniqueStems
from squeezedet.media.pictures import PictureFolder
from squeezedet.media.sources import Source
from squeezedet.media.video_file import FORMATS, VideoFile

Save = Callable[[Frame, Detections], object]
VIDEO_KINDS = ("video", "live")


def names_video(target: Path) -> bool:
    """The target has the name of a video and is no folder."""
    return target.suffix.lower() in FORMATS and not target.is_dir()


@contextmanager
def saving(
    target: Path, sources: Sequence[Source], fps: float, say: Callable[[str], None]
) -> Iterator[Save]:
    """Where annotated frames go; the function that comes back takes one after the other.

    ``out.mp4`` takes one video, or pictures, which become its frames. Any other name is a folder:
    ``STEM.jpg`` for a picture, ``STEM.mp4`` for a video.

    Args:
        target: file or folder.
        sources: what is read; none of it is ever overwritten.
        fps: how many pictures make a second; videos have times of their own.
        say: takes the sentence about each video that was written.

    Raises:
        UsageError: the target does not fit the sources.
        MissingExtraError: a video is to be written, and PyAV is not installed.
    """
    if not names_video(target):
        if target.suffix.lower() in VIDEO_SUFFIXES and not target.is_dir():
            raise UsageError(f"{target}: a video is written as {', '.join(FORMATS)}")
        with _Folder(target, sources, say) as folder:
            yield folder.write
        return
    if len(sources) > 1 and any(source.kind in VIDEO_KINDS for source in sources):
        raise UsageError(f"{target}: takes one video or pictures; name a folder for several videos")
    if target.resolve() in {Path(name).resolve() for name in _files(sources)}:
        raise UsageError(f"{target}: is read; save the annotated video under another name")
    if not target.parent.is_dir():
        raise UsageError(f"{target}: there is no folder {target.parent}")
    with VideoFile(target) as file:

        def write(frame: Frame, detections: Detections) -> None:
            time_s = file.frames / fps if frame.moment is None else frame.moment.time_s
            file.write(detections.draw(frame.pixels), time_s)

        yield write
    if file.frames:
        say(file.describe())


class _Folder:
    """``STEM.jpg`` for each picture and ``STEM.mp4`` for each video, made one after the other."""

    def __init__(self, folder: Path, sources: Sequence[Source], say: Callable[[str], None]) -> None:
        self._pictures = PictureFolder(folder, _files(sources))
        self._stems = UniqueStems()
        self._say = say
        self._video: VideoFile | None = None

    def __enter__(self) -> Self:
        return self

    def write(self, frame: Frame, detections: Detections) -> None:
        """Write the picture, or the next frame of its video."""
        if frame.moment is None or frame.moment.first:
            self._finish()
        if frame.moment is None:
            self._pictures.write(frame, detections)
            return
        if self._video is None:
            path = self._pictures.folder / f"{self._stems(frame.name)}.mp4"
            self._video = VideoFile(path)
        self._video.write(detections.draw(frame.pixels), frame.moment.time_s)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        elif self._video is not None:
            self._video.__exit__(kind, error, trace)

    def _finish(self) -> None:
        """The video that is being written is whole."""
        video, self._video = self._video, None
        if video is not None:
            video.__exit__(None, None, None)
            self._say(video.describe())


def _files(sources: Sequence[Source]) -> list[str]:
    return [
        source.name
        for source in sources
        if source.kind in ("file", "video") and "://" not in source.name
    ]
