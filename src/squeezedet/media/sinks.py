"""Where detections go: records that other tools take, text for people, annotated pictures and videos, a window."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, TextIO
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from squeezedet.detections import Detections
from squeezedet.drawing import PICTURE_FORMATS, encode_picture
from squeezedet.errors import DataError, UsageError
from squeezedet.files import IMAGE_SUFFIXES, check_file, growing_file, make_folder, read_text, text_file, write_atomic
from squeezedet.media.images import Frame, FrameTime
from squeezedet.media.kinds import VIDEO_SUFFIXES
from squeezedet.media.sources import STDIN, STDIN_IN_WORDS, MediaSource
from squeezedet.media.video import VIDEO_FORMATS, VideoFile
from squeezedet.text import align, counted

if TYPE_CHECKING:
    from PIL.Image import Image

# ----------------------------------------------------------------- names


def stem_of(name: str) -> str:
    """The name of an image without folder and suffix: ``http://x/a/b.jpg?w=9`` gives ``b``."""
    if name == "-":
        return "stdin"
    if "://" in name:
        try:
            parts = urlsplit(name)
        except ValueError:  # no address; whoever opens it says so
            return "image"
        last = PurePosixPath(unquote(parts.path)).stem
        return _plain(last or parts.hostname or "image")
    return Path(name).stem or "image"


def _plain(stem: str) -> str:
    """A stem that came from outside, without what a file system could take for a path."""
    kept = "".join(c if c.isalnum() or c in "-_. " else "_" for c in stem).lstrip(".")
    return kept[:100] or "image"


class UniqueStems:
    """Gives each image its stem, and ``stem-2``, ``stem-3``, ... where one comes again.

    Case is ignored, as some file systems do. The frames of a video are ``drive_000000``, ``drive_000001``, ...
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._next: dict[str, int] = {}  # a video has thousands of frames of one name
        self._video = self._stem = ""
        self._number = 0

    def __call__(self, name: str) -> str:
        """The stem for the image of this name; every call is another image."""
        stem = unique = stem_of(name)
        number = self._next.get(stem.casefold(), 2)
        while unique.casefold() in self._used:
            unique = f"{stem}-{number}"
            number += 1
        self._next[stem.casefold()] = number
        self._used.add(unique.casefold())
        return unique

    def of(self, detections: Detections) -> str:
        """The stem of the next image or frame."""
        if detections.time_s is None:
            self._video = ""
            return self(detections.image)
        if detections.image != self._video or not detections.time_s:
            self._video, self._number = detections.image, 0
            self._stem = self(detections.image)
        self._number += 1
        return f"{self._stem}_{self._number - 1:06d}"


# ----------------------------------------------------------------- records

STDOUT = "-"
MAX_LABELS_BYTES = 1_000_000_000
"""Limit of a COCO file whose ids and categories are taken over."""

Write = Callable[[Detections], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """What some formats want to know before the first record."""

    timed: bool = False  # some images are frames of videos
    live: bool = False  # some of these are live and have wall-clock times
    tracked: bool = False  # boxes have ids
    labels: Path | None = None  # a COCO file whose image ids and categories are used


class TextRecords:
    """A format of one text file; this one is ``Detections.to_dict``, one a line."""

    grows = True  # the file is there from the first record on; others appear when they are whole

    def __init__(self, file: TextIO, options: RecordOptions) -> None:
        self.file = file

    def write(self, detections: Detections) -> None:
        """The record of the next image or frame."""
        self.file.write(detections.to_json() + "\n")

    def end(self) -> None:
        """What comes behind the last record."""


class Csv(TextRecords):
    """A row for each box."""

    def __init__(self, file: TextIO, options: RecordOptions) -> None:
        super().__init__(file, options)
        self._table = csv.writer(file, lineterminator="\n")
        more = {"time_s": options.timed, "wall_time": options.live, "track_id": options.tracked}
        self._more = tuple(name for name, wanted in more.items() if wanted)
        self._table.writerow(("image", "class", "score", "x1", "y1", "x2", "y2", *self._more))

    def write(self, detections: Detections) -> None:
        time_s, wall_time = detections.time_s, detections.wall_time
        for box in detections:
            more = {
                "time_s": "" if time_s is None else f"{time_s:.6f}",
                "wall_time": "" if wall_time is None else wall_time.isoformat(),
                "track_id": "" if box.track_id is None else str(box.track_id),
            }
            corners = (f"{value:.2f}" for value in box.xyxy)
            row = (detections.image, box.name, f"{box.score:.4f}", *corners)
            self._table.writerow((*row, *(more[name] for name in self._more)))


class Json(TextRecords):
    """An array of ``Detections.to_dict``, one a line."""

    grows = False

    def __init__(self, file: TextIO, options: RecordOptions) -> None:
        super().__init__(file, options)
        self._between = "[\n"

    def write(self, detections: Detections) -> None:
        self.element(detections.to_dict())

    def element(self, record: Mapping[str, Any]) -> None:
        """One element of the array."""
        self.file.write(self._between + json.dumps(record, ensure_ascii=False))
        self._between = ",\n"

    def end(self) -> None:
        self.file.write("[]\n" if self._between == "[\n" else "\n]\n")


class Coco(Json):
    """COCO results, see ``Detections.to_coco``; a frame's file_name is its video's and a number.

    Ids come from a labels file, where one is given. Else the id of an image is the number that
    its file is called by, or its name; categories count from 1.
    """

    def __init__(self, file: TextIO, options: RecordOptions) -> None:
        super().__init__(file, options)
        self._stems = UniqueStems()
        self._numbers: set[int] = set()
        self._labels = CocoIds(options.labels) if options.labels else None

    def write(self, detections: Detections) -> None:
        stem = self._stems.of(detections)
        frame = {} if detections.time_s is None else {"file_name": stem}
        image_id = self._labels.image(detections.image) if self._labels else self._number(stem)
        for found, record in zip(detections, detections.to_coco(image_id), strict=True):
            if self._labels:
                record["category_id"] = self._labels.category(found.name)
            self.element({"image_id": image_id, **frame, **record})

    def _number(self, stem: str) -> int | str:
        if not (stem.isascii() and stem.isdecimal()) or int(stem) in self._numbers:
            return stem  # 42.png after 000042.png is another image
        self._numbers.add(int(stem))
        return int(stem)


class CocoIds:
    """The ids of images and categories in a COCO file; a DataError for what it does not have, or if it is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            content = json.loads(read_text(path, "labels", max_bytes=MAX_LABELS_BYTES))
            images = {image["file_name"].replace("\\", "/"): image["id"] for image in content["images"]}
            self._categories = {c["name"].casefold(): c["id"] for c in content["categories"]}
            by_tail: dict[str, Any] = {}
            for name, number in images.items():
                for tail in _tails(name):
                    by_tail[tail] = number if by_tail.get(tail, number) == number else None  # None: of several
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}: is no COCO file with images and categories") from error
        self._images = by_tail | images

    def image(self, name: str) -> Any:
        """The id of an image, by as much of its path as the labels hold; its suffix may differ."""
        for tail in _tails(Path(name).absolute().as_posix()):
            if (number := self._images.get(tail)) is not None:
                return number
        raise DataError(f"{name}: {self._path} has no image of this name, or several")

    def category(self, name: str) -> Any:
        """The id of a category."""
        if name.casefold() not in self._categories:
            known = ", ".join(self._categories)
            raise DataError(f"{self._path}: has no category {name!r} (there are {known}); choose with `classes`")
        return self._categories[name.casefold()]


def _tails(name: str) -> Iterator[str]:
    """A path, then less and less of it, each with its suffix and without."""
    parts = PurePosixPath(name).parts
    for start in range(len(parts)):
        tail = PurePosixPath(*parts[start:])
        yield str(tail)
        yield str(tail.parent / tail.stem)


class LabelStudio(Json):
    """Tasks with predictions, as Label Studio imports them."""

    def __init__(self, file: TextIO, options: RecordOptions) -> None:
        super().__init__(file, options)
        self._stems = UniqueStems()

    def write(self, detections: Detections) -> None:
        stem = self._stems.of(detections)
        image = detections.image if detections.time_s is None else stem
        width, height = max(detections.width, 1), max(detections.height, 1)
        results = []
        for number, box in enumerate(detections):
            x1, y1, x2, y2 = box.xyxy
            shares = {"x": x1 / width, "y": y1 / height, "width": (x2 - x1) / width, "height": (y2 - y1) / height}
            rectangle = {key: round(100 * share, 4) for key, share in shares.items()}
            results.append(
                {
                    "id": f"{stem}-{number}",
                    "type": "rectanglelabels",
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": detections.width,
                    "original_height": detections.height,
                    "image_rotation": 0,
                    "score": round(box.score, 4),
                    "value": {**rectangle, "rotation": 0, "rectanglelabels": [box.name]},
                }
            )
        mean = sum(box.score for box in detections) / max(len(detections), 1)
        prediction = {"model_version": "squeezedet", "score": round(mean, 4), "result": results}
        self.element({"data": {"image": image}, "predictions": [prediction]})


class FolderRecords:
    """A format of one text file for each image, in a folder; this one is KITTI's result files."""

    subfolder, suffix = "", ".txt"

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        make_folder(folder / self.subfolder)
        self._stems = UniqueStems()

    def write(self, detections: Detections) -> None:
        """The file of the next image or frame."""
        stem = self._stems.of(detections)
        with text_file(self.folder / self.subfolder / f"{stem}{self.suffix}") as file:
            file.write(self.text(detections, stem))

    def text(self, detections: Detections, stem: str) -> str:
        """The content of the file of one image."""
        return detections.to_kitti()

    def end(self) -> None:
        """What is written behind the last image."""


class Yolo(FolderRecords):
    """YOLO labels: class, center x, center y, width, height as shares of the image.

    ``classes.txt`` has the names. Scores have no place in the labels that other tools read.
    """

    names: tuple[str, ...] = ()

    def text(self, detections: Detections, stem: str) -> str:
        if not self.names:
            self.names = detections.names
            write_atomic(self.folder / "classes.txt", "".join(f"{n}\n" for n in self.names))
        width, height = max(detections.width, 1), max(detections.height, 1)
        lines = []
        for box in detections:
            x1, y1, x2, y2 = box.xyxy
            center = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height)
            shares = (*center, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(f"{box.class_id} " + " ".join(f"{v:.6f}" for v in shares) + "\n")
        return "".join(lines)


class Voc(FolderRecords):
    """VOC: ``Annotations/STEM.xml`` for each image, and ``CLASS.txt`` (image, score, box)."""

    subfolder, suffix = "Annotations", ".xml"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._lines: dict[str, list[str]] = {}

    def text(self, detections: Detections, stem: str) -> str:
        for name in detections.names:
            self._lines.setdefault(name, [])
        objects = ""
        for box in detections:
            corners = [f"{value:.2f}" for value in box.xyxy]
            self._lines[box.name].append(f"{stem} {box.score:.4f} {' '.join(corners)}\n")
            sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            bndbox = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
            objects += (
                f"  <object>\n    <name>{escape(box.name)}</name>\n    <pose>Unspecified</pose>\n"
                "    <truncated>0</truncated>\n    <difficult>0</difficult>\n"
                f"    <bndbox>{bndbox}</bndbox>\n  </object>\n"
            )
        file = Path(detections.image).name if detections.time_s is None else f"{stem}.jpg"
        printable = "".join(sign if sign.isprintable() else "_" for sign in file)  # XML cannot hold the others
        return (
            f"<annotation>\n  <filename>{escape(printable)}</filename>\n"
            f"  <size><width>{detections.width}</width><height>{detections.height}</height>"
            f"<depth>3</depth></size>\n  <segmented>0</segmented>\n{objects}</annotation>\n"
        )

    def end(self) -> None:
        for name, lines in self._lines.items():
            write_atomic(self.folder / f"{name}.txt", "".join(lines))


TEXT_FORMATS: Mapping[str, type[TextRecords]] = MappingProxyType(
    {"json": Json, "jsonl": TextRecords, "csv": Csv, "coco": Coco, "labelstudio": LabelStudio}
)
FOLDER_FORMATS: Mapping[str, type[FolderRecords]] = MappingProxyType({"kitti": FolderRecords, "yolo": Yolo, "voc": Voc})
RECORD_FORMATS = (*TEXT_FORMATS, *FOLDER_FORMATS)
SUFFIX_FORMATS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {".json": ("json", "coco", "labelstudio"), ".jsonl": ("jsonl",), ".ndjson": ("jsonl",), ".csv": ("csv",)}
)
"""The formats that a suffix may mean, the first without being asked."""


def record_format(target: str, form: str | None) -> str:
    """The format of a file, a folder or "-": as asked, or by its suffix; a UsageError if the two contradict."""
    if form is not None and form not in RECORD_FORMATS:
        raise UsageError(f"`format`: no format {form!r}; there are {', '.join(RECORD_FORMATS)}")
    suffix = Path(target).suffix.lower()
    folder = form in FOLDER_FORMATS and suffix not in SUFFIX_FORMATS  # a folder may have a point in its name
    if target == STDOUT or folder or not suffix:
        return form or "json"
    if suffix in IMAGE_SUFFIXES:
        raise UsageError(f"{target}: has the name of an image; it would be replaced")
    meant = SUFFIX_FORMATS.get(suffix)
    if meant is None:
        raise UsageError(
            f"{target}: no format of records has the suffix {suffix}; there are {', '.join(SUFFIX_FORMATS)}"
        )
    if form is not None and form not in meant:
        raise UsageError(f"{target}: {suffix} is {meant[0]}, and `format` says {form}")
    return form or meant[0]


@contextmanager
def record_sink(target: str, form: str | None = None, options: RecordOptions | None = None) -> Iterator[Write]:
    """Open the target; the function that comes back writes the record of one image.

    Args:
        target: path of a file, "-" for standard output, or for kitti, yolo and voc a folder.
        form: one of ``RECORD_FORMATS``; by default the suffix of the target decides.
        options: what some formats want to know.

    Raises:
        UsageError: the format is unknown or does not fit the target.
        SqueezeDetError: the target cannot be written.
    """
    form = record_format(target, form)
    options = options or RecordOptions()
    if options.labels and form != "coco":
        raise UsageError("`labels` is for the format coco: its ids and categories are used")
    if form in FOLDER_FORMATS:
        if target == STDOUT:
            raise UsageError(f"format {form} writes one file per image: name a folder for them")
        folder = FOLDER_FORMATS[form](Path(target))
        yield folder.write
        folder.end()
        return
    kind = TEXT_FORMATS[form]
    with _open(target, kind.grows) as file:
        records = kind(file, options)

        def write(detections: Detections) -> None:
            records.write(detections)
            if kind.grows:
                file.flush()

        yield write
        records.end()


@contextmanager
def _open(target: str, grows: bool) -> Iterator[TextIO]:
    if target == STDOUT:
        if isinstance(sys.stdout, TextIOWrapper):  # JSON is UTF-8 whatever the terminal speaks
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(target)
    check_file(path)
    with growing_file(path) if grows else text_file(path) as file:
        yield file


# ----------------------------------------------------------------- text for people


def describe(detections: Detections) -> str:
    """One image: its name, size and counts, and below a line per box in pixels.

    Of a frame of a video only the first line, with the time.
    """
    counts = ", ".join(f"{name} {n}" for name, n in detections.counts().items())
    name = STDIN_IN_WORDS if detections.image == STDIN else detections.image
    size = f"{detections.width}x{detections.height}"
    if detections.time_s is not None:
        return f"{name}  {detections.time_s:.3f} s  {size}  {counts or 'no boxes'}"
    head = f"{name}  {size}  {counts or 'no boxes'}"
    if not len(detections):
        return head
    tracked = detections.track_id is not None
    rows: list[tuple[str, ...]] = [("class", "score", "x1", "y1", "x2", "y2", *("track",) * tracked)]
    for box in detections:
        corners = (f"{value:.1f}" for value in box.xyxy)
        rows.append((box.name, f"{box.score:.2f}", *corners, *(str(box.track_id),) * tracked))
    return f"{head}\n{align(rows, indent='  ')}"


class Summary:
    """Counts over several images and videos."""

    def __init__(self) -> None:
        self.images = 0  # and frames
        self._boxes: Counter[str] = Counter()
        self._tracks: dict[str, set[tuple[int, int]]] = {}
        self._videos = 0
        self._name = ""
        self._moment: FrameTime | None = None  # of the last frame

    def begins(self, frame: Frame) -> bool:
        """Whether the frame is the first of another video, or an image behind a video."""
        return self._moment is not None if frame.moment is None else frame.moment.first

    def add(self, frame: Frame, detections: Detections) -> None:
        """Count one image or frame."""
        self.images += 1
        self._videos += frame.moment is not None and frame.moment.first
        self._name, self._moment = frame.name, frame.moment
        self._boxes.update(detections.counts())
        for box in detections:
            if box.track_id is not None:
                self._tracks.setdefault(box.name, set()).add((self._videos, box.track_id))

    def video(self) -> str:
        """What came of the last video: frames, seconds, what was dropped or damaged; "" if none."""
        moment, self._moment = self._moment, None
        if moment is None:
            return ""
        frames = counted(moment.number + 1 - moment.dropped, "frame")
        text = f"{self._name}: {frames} of {moment.time_s:.1f} s"
        text += f", {moment.dropped} dropped" if moment.dropped else ""
        return text + (f", {moment.damaged} damaged" if moment.damaged else "")

    def total(self) -> str:
        """All images and frames together: boxes of each class, and tracked objects."""
        what = "frame" if self._videos else "image"
        parts = []
        for name, boxes in sorted(self._boxes.items()):
            ids = self._tracks.get(name)
            parts.append(f"{name} {boxes:,}" + (f" ({counted(len(ids), 'object')})" if ids else ""))
        return f"{counted(self.images, what)}: {', '.join(parts) or 'no boxes'}"


# ----------------------------------------------------------------- pictures and videos


class AnnotatedFolder:
    """Writes ``STEM.jpg`` for each picture and ``STEM.mp4`` for each video, one after the other; then ``STEM-2.jpg``.

    The images that are read (``sources``) are never overwritten, and nothing is written among them. As a context it
    ends the last video; ``say`` takes the sentence about each.

    Raises:
        UsageError: a source lies in the folder, or the folder cannot be made.
    """

    def __init__(self, folder: Path, sources: Iterable[str] = (), say: Callable[[str], object] = print) -> None:
        paths = [Path(name) for name in sources]
        if folder.resolve() in {path.parent.resolve() for path in paths}:
            raise UsageError(f"{folder}: holds images that are read; save the annotated pictures into another folder")
        self._folder, self._say = make_folder(folder), say
        self._pictures, self._videos = UniqueStems(), UniqueStems()
        self._sources = {path.resolve() for path in paths}
        self._video: VideoFile | None = None

    def __enter__(self) -> Self:
        return self

    def write(self, frame: Frame, detections: Detections) -> Path:
        """Draw the boxes and write the picture, or the next frame of its video.

        Raises:
            UsageError: the picture would replace, through a link, an image that is read.
            SqueezeDetError: the file cannot be written.
        """
        if frame.moment is None or frame.moment.first:
            self._finish()
        if frame.moment is not None:
            self._video = self._video or VideoFile(self._folder / f"{self._videos(frame.name)}.mp4")
            self._video.write(detections.draw(frame.pixels), frame.moment.time_s)
            return self._video.path
        path = self._folder / f"{self._pictures(frame.name)}.jpg"
        if path.resolve() in self._sources:
            raise UsageError(f"{path}: the annotated picture would replace the image itself; save into another folder")
        write_atomic(path, encode_picture(detections.draw(frame.pixels)))
        return path

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self._finish()
        elif self._video is not None:
            self._video.__exit__(kind, error, trace)

    def _finish(self) -> None:
        """The video that is being written is whole."""
        video, self._video = self._video, None
        if video is not None:
            video.__exit__(None, None, None)
            self._say(video.describe())


Save = Callable[[Frame, Detections], object]
VIDEO_KINDS = ("video", "live")


def names_video(target: Path) -> bool:
    """The target has the name of a video and is no folder."""
    return target.suffix.lower() in VIDEO_FORMATS and not target.is_dir()


@contextmanager
def saving(target: Path, sources: Sequence[MediaSource], fps: float, say: Callable[[str], None]) -> Iterator[Save]:
    """Where annotated frames go; the function that comes back takes one after the other.

    ``out.mp4`` takes one video, or pictures, which become its frames; ``boxes.jpg`` one picture.
    Any other name is a folder: ``STEM.jpg`` for a picture, ``STEM.mp4`` for a video.

    Args:
        target: file or folder.
        sources: what is read; none of it is ever overwritten.
        fps: how many pictures make a second; videos have times of their own.
        say: takes the sentence about each video that was written.

    Raises:
        UsageError: the target does not fit the sources.
        MissingExtraError: a video is to be written, and PyAV is not installed.
    """
    suffix = target.suffix.lower()
    if target.is_dir() or suffix not in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES):
        with AnnotatedFolder(target, _files(sources), say) as folder:
            yield folder.write
        return
    known = VIDEO_FORMATS if suffix in VIDEO_SUFFIXES else PICTURE_FORMATS
    if suffix not in known:
        what = "video" if suffix in VIDEO_SUFFIXES else "picture"
        raise UsageError(f"{target}: a {what} is written as {', '.join(known)}")
    if target.resolve() in {Path(name).resolve() for name in _files(sources)}:
        raise UsageError(f"{target}: is read; save what is annotated under another name")
    if not target.parent.is_dir():
        raise UsageError(f"{target}: there is no folder {target.parent}")
    videos = any(source.kind in VIDEO_KINDS for source in sources)
    if suffix in PICTURE_FORMATS:
        if len(sources) > 1 or videos:
            raise UsageError(f"{target}: takes one picture; name a folder for several or a video")
        yield lambda frame, detections: write_atomic(
            target, encode_picture(detections.draw(frame.pixels), PICTURE_FORMATS[suffix])
        )
        return
    if len(sources) > 1 and videos:
        raise UsageError(f"{target}: takes one video or pictures; name a folder for several videos")
    with VideoFile(target) as file:

        def write(frame: Frame, detections: Detections) -> None:
            time_s = file.frames / fps if frame.moment is None else frame.moment.time_s
            file.write(detections.draw(frame.pixels), time_s)

        yield write
    if file.frames:
        say(file.describe())


def _files(sources: Sequence[MediaSource]) -> list[str]:
    return [source.name for source in sources if source.kind in ("file", "video") and "://" not in source.name]


# ----------------------------------------------------------------- a window

ADVICE = "write a video with `save`, or open the page of `squeezedet serve` in a browser"


class Window:
    """Opens at once and shows pictures at their size, the larger ones as large as the screen.

    Closing it, or the keys q and Escape, set ``closed``: the user has seen enough.

    Raises:
        UsageError: there is no screen, or this Python has no tkinter.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise UsageError(f"`show` needs Python's tkinter; {ADVICE}") from error
        try:
            self._root = tkinter.Tk(className="squeezedet")
        except tkinter.TclError as error:
            raise UsageError(f"`show` finds no screen; {ADVICE}") from error
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

    def __exit__(self, *error: object) -> None:
        self._picture = None
        self._root.destroy()

    def _close(self, *_: object) -> None:
        self.closed = True
