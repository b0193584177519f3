"""``squeezedet detect`` and ``demo``: images and videos in, boxes out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

import typer
from typer import Argument, Option

from squeezedet.cli import options
from squeezedet.cli.options import STDOUT, say
from squeezedet.errors import UsageError
from squeezedet.files import Interrupts

if TYPE_CHECKING:
    from squeezedet.detections import Detections
    from squeezedet.media.images import Frame
    from squeezedet.media.sources import Failure, MediaSource
    from squeezedet.media.video import Reconnect
    from squeezedet.runtime.detector import Detector

    Sink = Callable[[Frame, Detections], object]

T = TypeVar("T")


class VideoStop(Interrupts):
    """Ctrl-C and SIGTERM end the items; a second one interrupts at once.

    >>> with VideoStop() as stop:                  # doctest: +SKIP
    ...     for frame in stop.before(frames):
    ...         work(frame)

    Args:
        active: without, signals do what they always do, and the items come to their own end.
    """

    def __init__(self, active: bool = True) -> None:
        super().__init__()
        self._active = active
        self._waiting = self._ended = False

    def __enter__(self) -> Self:
        if self._active:
            super().__enter__()
        return self

    def before(self, items: Iterable[T]) -> Generator[T, None, None]:
        """The items until a signal comes; one that is waited for is not waited for longer."""
        iterator = iter(items)
        while not self._over():
            try:
                self._waiting = True
                item = next(iterator)
            except StopIteration:
                break
            except KeyboardInterrupt:
                if not self.asked:
                    raise
                break
            finally:
                self._waiting = False
            yield item

    def end(self) -> None:
        """No further item, and no interrupt either."""
        self._ended = True

    def _over(self) -> bool:
        return self.asked or self._ended

    def _ask(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if self._waiting or again:
            self._waiting = False
            raise KeyboardInterrupt


Format = Literal["json", "jsonl", "csv", "coco", "labelstudio", "kitti", "yolo", "voc"]
MANY = 4
"""From so many images on there is a progress bar."""


def detect(
    context: typer.Context,
    sources: Annotated[
        list[str],
        Argument(
            metavar="SOURCE",
            help="Image, folder, quoted pattern, http(s) address, or - for standard input; video, "
            "rtsp:// address or camera (0, /dev/video0); trip/%06d.jpg for numbered pictures.",
            show_default=False,
        ),
    ],
    *,
    model: options.GivenModel = None,
    model_dir: options.ModelDir = None,
    score: options.Score = None,
    save: Annotated[
        Path | None,
        Option(
            metavar="DIR|FILE",
            help="Write annotated pictures (STEM.jpg) and videos (STEM.mp4) into this folder, or "
            "one into this file (.mp4, .mov, .mkv; .jpg, .png).",
        ),
    ] = None,
    output: Annotated[
        str | None,
        Option(
            "--out",
            "-o",
            metavar="FILE|DIR|-",
            help="Write records to this file, or - for standard output; the suffix decides the "
            "format (.json, .jsonl, .csv). kitti, yolo and voc fill a folder. jsonl and "
            "csv grow image by image, the others appear when they are whole.",
        ),
    ] = None,
    form: Annotated[
        Format | None,
        Option(
            "--format",
            help="Format of the records [default: that of the suffix, or json]; without --out "
            "they go to standard output.",
        ),
    ] = None,
    jsonl: Annotated[str | None, Option(hidden=True, help="As --out and --format jsonl.")] = None,
    labels: Annotated[Path | None, Option(metavar="FILE", help="COCO file: use its image and category ids.")] = None,
    classes: Annotated[str | None, Option(metavar="A,B", help="Report these only [default: all of the model].")] = None,
    recursive: options.Recursive = False,
    track: Annotated[bool, Option("--track", help="Give the boxes of one object one id, over frames.")] = False,
    show: Annotated[bool, Option("--show", help="Show frames in a window; q closes it and ends.")] = False,
    live: Annotated[bool, Option("--live", help="Sources are live videos: frames that come too fast drop.")] = False,
    reconnect: Annotated[int, options.RECONNECT] = 10,
    stall: Annotated[float, options.STALL] = 10.0,
    fps: Annotated[float, Option(min=0.01, help="Pictures a second of a video made of pictures.")] = 10.0,
    trust_model: options.TrustModel = False,
    require_signature: options.RequireSignature = None,
    engine: options.Engine = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No table, notes or progress bar; only errors.")] = False,
    max_pixels: Annotated[int | None, Option(min=1, help="Refuse larger images [default: 80 million].")] = None,
    threads: options.Threads = None,
) -> None:
    """Find cars, pedestrians and cyclists in images and videos.

    Prints a table for each image: class, score and box (x1, y1, x2, y2 in pixels of the
    image), and a line for each frame of a video. An image that cannot be used is named on
    standard error and the others go on; the exit code is then 3.

    Examples:
      squeezedet detect street.jpg
      squeezedet detect photos --save annotated
      squeezedet detect 'trip/*.png' -o boxes.json
      squeezedet detect photos --format csv > boxes.csv
      curl -s https://example.org/street.jpg | squeezedet detect -
      squeezedet detect drive.mp4 --track --save out.mp4 -o out.jsonl
      squeezedet detect 'rtsp://camera/stream' --show
    """
    from squeezedet.media.images import MAX_PIXELS
    from squeezedet.media.prefetch import BackgroundWriter
    from squeezedet.media.sinks import (
        VIDEO_KINDS,
        RecordOptions,
        describe,
        names_video,
        record_format,
        record_sink,
        saving,
    )
    from squeezedet.media.sources import MediaSource, locate
    from squeezedet.media.video import Reconnect

    if jsonl and (output or form):
        raise UsageError("--jsonl FILE is --out FILE --format jsonl: give one of them")
    output = output or jsonl or (STDOUT if form else None)
    kind = record_format(output, "jsonl" if jsonl else form) if output else None
    _check_labels(labels, kind)
    class_names = options.names_of(classes)
    located = locate(sources, recursive=recursive, live=live)
    readable = [item for item in located if isinstance(item, MediaSource)]
    kinds = {source.kind for source in readable}
    video = bool(kinds & set(VIDEO_KINDS))
    record_options = RecordOptions(timed=video, live="live" in kinds, tracked=track, labels=labels)
    log = _Log(quiet)

    open_model = partial(
        options.open_detector,
        model,
        model_dir,
        engine=engine,
        threads=threads,
        trust_model=trust_model,
        require_signature=require_signature,
    )
    whole = video or show or bool(save and names_video(save))
    with VideoStop(whole) as stop, ExitStack() as stack:
        sinks: list[Sink] = []
        if not quiet and output != STDOUT:
            sinks.append(lambda _, detections: print(describe(detections)))
        if save:
            saver = stack.enter_context(saving(save, readable, fps, log.note))
            sinks.append(stack.enter_context(BackgroundWriter(saver)))
        if output:
            write = stack.enter_context(record_sink(output, kind, record_options))
            sinks.append(lambda _, detections: write(detections))
        if show:
            sinks.append(stack.enter_context(open_window(sources[0], stop)))
        again = Reconnect(say=say, attempts=reconnect, stall_s=stall)
        items = _items(stack, located, max_pixels or MAX_PIXELS, again)
        items = _with_bar(stack, items, 0 if quiet or video else len(located), on_stdout=output == STDOUT)
        frames = log.usable(stop.before(items), context.command.params)
        for frame, detections in _found(frames, open_model, score=score, classes=class_names, track=track):
            log.add(frame, detections)
            for sink in sinks:
                sink(frame, detections)
        log.end()
    if stop.asked:  # all files are whole by now
        raise KeyboardInterrupt
    if log.failures:
        raise typer.Exit(max(log.failures))


def _found(
    frames: Iterable[Frame], open_model: Callable[[], Detector], **wanted: Any
) -> Iterator[tuple[Frame, Detections]]:
    """What is found in each frame; without any there is no need to wait for the model."""
    from squeezedet.runtime.detector import FrameStream

    stream = None
    for frame in frames:
        stream = stream or FrameStream(open_model(), **wanted)
        yield frame, stream.detect(frame)


class _Log:
    """What the command says on standard error, and what it counts.

    Attributes:
        failures: exit code of each source that gave no image, not all of it, or ended.
    """

    def __init__(self, quiet: bool) -> None:
        from squeezedet.media.sinks import Summary

        self.failures: list[int] = []
        self._summary = Summary()
        self._quiet = quiet

    def usable(self, items: Iterable[Frame | Failure], parameters: Sequence[Any]) -> Iterator[Frame]:
        """The images that can be used; the others are named, in the words of the command's parameters."""
        from squeezedet.media.sources import Failure

        for item in items:
            if isinstance(item, Failure):
                self.failures.append(item.error.exit_code)
                say(options.with_options(item.error, parameters))
            else:
                yield item

    def add(self, frame: Frame, detections: Detections) -> None:
        """Count one image or frame."""
        if self._summary.begins(frame):
            self.note(self._summary.video())
        for note in frame.notes:
            self.note(note)
        self._summary.add(frame, detections)

    def end(self) -> None:
        """Say what is to be said of the last video, and of all together."""
        self.note(self._summary.video())
        if self._summary.images > 1:
            self.note(self._summary.total())

    def note(self, sentence: str) -> None:
        """A sentence, unless it is empty or the user wants none."""
        if sentence and not self._quiet:
            say(sentence)


def _check_labels(labels: Path | None, kind: str | None) -> None:
    if labels and kind != "coco":
        raise UsageError("`labels`: only COCO's format has ids of images and categories: add --format coco")


def _items(
    stack: ExitStack, located: Sequence[MediaSource | Failure], max_pixels: int, reconnect: Reconnect
) -> Iterable[Frame | Failure]:
    """The frames, read ahead where nothing is lost by that."""
    from squeezedet.media.prefetch import prefetch
    from squeezedet.media.sources import frames

    items = frames(located, max_pixels=max_pixels, reconnect=reconnect)
    kinds = [getattr(item, "kind", "") for item in located]
    # What is live would grow old; who waits for standard input could not be interrupted.
    if "live" in kinds or "stdin" in kinds or (len(kinds) == 1 and "video" not in kinds):
        return stack.enter_context(closing(items))
    return stack.enter_context(closing(prefetch(items)))


@contextmanager
def open_window(title: str, stop: VideoStop) -> Iterator[Sink]:
    """A window for ``--show``; closing it ends the frames."""
    from squeezedet.media.kinds import without_password
    from squeezedet.media.sinks import Window

    with Window(without_password(title)) as window:

        def show(frame: Frame, detections: Detections) -> None:
            window.show(detections.draw(frame.pixels))
            if window.closed:
                stop.end()

        yield show


def _with_bar(
    stack: ExitStack, items: Iterable[Frame | Failure], total: int, *, on_stdout: bool
) -> Iterable[Frame | Failure]:
    """The same items, with a bar on standard error that shows how many there are to come.

    Only for many images, on a terminal, and where no records would run into it.
    """
    if total < MANY or not sys.stderr.isatty() or (on_stdout and sys.stdout.isatty()):
        return items
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # On a terminal the tables scroll above the bar; where they go to a file they stay untouched.
    progress = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    return stack.enter_context(progress).track(items, total=total)


def demo(
    output: Annotated[Path, Option("--out", "-o", metavar="DIR", help="Where the picture goes.")] = Path(
        "squeezedet-demo"
    ),
) -> None:
    """Detect in the picture that comes with the package.

    Prints what the shipped model finds in a drawn street scene and writes the
    picture with the boxes.

    Examples:
      squeezedet demo
      squeezedet demo --out /tmp/demo
    """
    from squeezedet.media.sinks import AnnotatedFolder, describe
    from squeezedet.runtime.detector import load
    from squeezedet.runtime.parity import sample_frame

    folder = AnnotatedFolder(output)
    frame = sample_frame()
    detections = load().detect(frame)
    print(describe(detections))
    path = folder.write(frame, detections)
    print(
        f"\nThe picture with its boxes: {path}\n\n"
        "Now try an image of your own:\n"
        "  squeezedet detect street.jpg --save annotated\n"
        "and for all there is to know:\n"
        "  squeezedet detect --help"
    )
