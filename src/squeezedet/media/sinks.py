"""Annotated pictures and videos: into one video file, or into a folder, a file for each source."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from squeezedet.detections import Detections
from squeezedet.drawing import encode_picture
from squeezedet.errors import UsageError
from squeezedet.files import (
    IMAGE_SUFFIXES,
    check_file,
    growing_file,
    make_folder,
    text_file,
    write_atomic,
)
from squeezedet.media.images import Frame
from squeezedet.media.kinds import VIDEO_SUFFIXES
from squeezedet.media.output import UniqueStems
from squeezedet.media.sources import MediaSource
from squeezedet.media.video import VIDEO_FORMATS, VideoFile

if TYPE_CHECKING:
    from PIL.Image import Image


# ---- records: Detections as records: one file for all images, or for KITTI one file per image.

STDOUT = "-"
RECORD_FORMATS = ("json", "jsonl", "kitti", "coco", "csv")
CSV_HEADER = ("image", "class", "score", "x1", "y1", "x2", "y2")

Write = Callable[[Detections], None]


@contextmanager
def record_sink(
    target: str, form: str, *, timed: bool = False, tracked: bool = False
) -> Iterator[Write]:
    """Open the target; the function that comes back writes the record of one image.

    Args:
        target: path of a file, "-" for standard output, or for kitti a folder.
        form: one of ``FORMATS``.
        timed: some images are frames of videos.
        tracked: boxes have ids.

    Raises:
        UsageError: the format is unknown or does not fit the target.
        SqueezeDetError: the target cannot be written.
    """
    if form == "kitti":
        yield _kitti(target)
        return
    table = partial(_csv, timed=timed, tracked=tracked)
    writers: dict[str, Callable[[TextIO], AbstractContextManager[Write]]]
    writers = {"json": _json, "jsonl": _jsonl, "csv": table, "coco": _coco}
    if form not in writers:
        raise UsageError(f"no format {form!r}; there are {', '.join(RECORD_FORMATS)}")
    with _open(target, form) as file, writers[form](file) as write:
        yield write


@contextmanager
def _open(target: str, form: str) -> Iterator[TextIO]:
    if target == STDOUT:
        if isinstance(sys.stdout, TextIOWrapper):  # JSON is UTF-8 whatever the terminal speaks
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(target)
    check_file(path)
    with growing_file(path) if form == "jsonl" else text_file(path) as file:
        yield file


@contextmanager
def _array(file: TextIO) -> Iterator[Callable[[str], None]]:
    """A JSON array, one element a line, written element by element."""
    between = "[\n"

    def write(element: str) -> None:
        nonlocal between
        file.write(between + element)
        between = ",\n"

    yield write
    file.write("[]\n" if between == "[\n" else "\n]\n")


@contextmanager
def _json(file: TextIO) -> Iterator[Write]:
    with _array(file) as write:
        yield lambda detections: write(detections.to_json())


@contextmanager
def _jsonl(file: TextIO) -> Iterator[Write]:
    def write(detections: Detections) -> None:
        file.write(detections.to_json() + "\n")
        file.flush()

    yield write


@contextmanager
def _csv(file: TextIO, timed: bool, tracked: bool) -> Iterator[Write]:
    table = csv.writer(file, lineterminator="\n")
    table.writerow((*CSV_HEADER, *("time_s",) * timed, *("track_id",) * tracked))

    def write(detections: Detections) -> None:
        for box in detections:
            row = [detections.image, box.name, f"{box.score:.4f}"]
            row += [f"{value:.2f}" for value in box.xyxy]
            if timed:
                row.append("" if detections.time_s is None else f"{detections.time_s:.6f}")
            if tracked:
                row.append(str(box.track_id))
            table.writerow(row)

    yield write


@contextmanager
def _coco(file: TextIO) -> Iterator[Write]:
    stems = UniqueStems()
    numbers: set[int] = set()
    with _array(file) as write_element:

        def image_id(name: str) -> int | str:
            stem = stems(name)
            if not (stem.isascii() and stem.isdecimal()) or int(stem) in numbers:
                return stem  # 42.png after 000042.png is another image
            numbers.add(int(stem))
            return int(stem)

        def write(detections: Detections) -> None:
            for result in detections.to_coco(image_id(detections.image)):
                write_element(json.dumps(result, ensure_ascii=False))

        yield write


def _kitti(target: str) -> Write:
    if target == STDOUT:
        raise UsageError("--format kitti needs --json DIR: it writes one file per image")
    folder = make_folder(Path(target))
    stems = UniqueStems()

    def write(detections: Detections) -> None:
        with text_file(folder / f"{stems(detections.image)}.txt") as file:
            file.write(detections.to_kitti())

    return write


# ---- pictures: Annotated pictures, one file each.


class PictureFolder:
    """Writes ``STEM.jpg`` for each image; two images of one stem get ``STEM.jpg``, ``STEM-2.jpg``.

    Args:
        folder: made if need be.
        sources: paths of the images that are read; none of them is ever overwritten, and
            the pictures never go among them.

    Raises:
        UsageError: a source lies in the folder, or the folder cannot be made.
    """

    def __init__(self, folder: Path, sources: Iterable[str] = ()) -> None:
        paths = [Path(name) for name in sources]
        if folder.resolve() in {path.parent.resolve() for path in paths}:
            raise UsageError(
                f"{folder}: holds images that are read; save the annotated pictures into "
                "another folder"
            )
        if folder.suffix.lower() in IMAGE_SUFFIXES and not folder.exists():
            raise UsageError(f"{folder}: has the name of an image; name a folder to save into")
        self.folder = make_folder(folder)
        self._stems = UniqueStems()
        self._sources = {path.resolve() for path in paths}

    def write(self, frame: Frame, detections: Detections) -> Path:
        """Draw the boxes and write the picture.

        Raises:
            UsageError: the picture would replace, through a link, an image that is read.
            SqueezeDetError: the file cannot be written.
        """
        path = self.folder / f"{self._stems(frame.name)}.jpg"
        if path.resolve() in self._sources:
            raise UsageError(
                f"{path}: the annotated picture would replace the image itself; "
                "save into another folder"
            )
        write_atomic(path, encode_picture(detections.draw(frame.pixels)))
        return path


# ---- saving: Annotated pictures and videos: into one video file, or into a folder, a file for ea

Save = Callable[[Frame, Detections], object]
VIDEO_KINDS = ("video", "live")


def names_video(target: Path) -> bool:
    """The target has the name of a video and is no folder."""
    return target.suffix.lower() in VIDEO_FORMATS and not target.is_dir()


@contextmanager
def saving(
    target: Path, sources: Sequence[MediaSource], fps: float, say: Callable[[str], None]
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
            raise UsageError(f"{target}: a video is written as {', '.join(VIDEO_FORMATS)}")
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

    def __init__(
        self, folder: Path, sources: Sequence[MediaSource], say: Callable[[str], None]
    ) -> None:
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


def _files(sources: Sequence[MediaSource]) -> list[str]:
    return [
        source.name
        for source in sources
        if source.kind in ("file", "video") and "://" not in source.name
    ]


# ---- window: A window that shows one picture after the other.

ADVICE = "write a video with --save out.mp4, or open the page of `squeezedet serve` in a browser"


class Window:
    """Opens at once and shows pictures at their size, the larger ones as large as the screen.

    Closing it, or the keys q and Escape, set ``closed``.

    Args:
        title: of the window.

    Attributes:
        closed: the user has seen enough.

    Raises:
        UsageError: there is no screen, or this Python has no tkinter.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise UsageError(f"--show needs Python's tkinter; {ADVICE}") from error
        try:
            self._root = tkinter.Tk(className="squeezedet")
        except tkinter.TclError as error:
            raise UsageError(f"--show finds no screen; {ADVICE}") from error
        self.closed = False
        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        for key in ("q", "<Escape>"):
            self._root.bind(key, self._close)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._picture: Any = None  # tkinter keeps no reference to what it shows
        self._root.update()

    def __enter__(self) -> Self:
        return self

    def show(self, picture: Image) -> None:
        """Show this picture until the next one comes."""
        from PIL import ImageTk

        room = (self._root.winfo_screenwidth(), self._root.winfo_screenheight())
        if picture.width > room[0] or picture.height > room[1]:
            picture.thumbnail(room)
        self._picture = ImageTk.PhotoImage(picture, master=self._root)
        self._label.configure(image=self._picture)
        self._root.update()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._picture = None
        self._root.destroy()

    def _close(self, *_: object) -> None:
        self.closed = True
