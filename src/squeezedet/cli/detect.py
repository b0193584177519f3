"""``squeezedet detect``: images and videos in, boxes out."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Self, TypeVar

import typer

from squeezedet.cli.options import ReconnectTimes, RequireSignature, Stall, TrustModel
from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.files import Interrupts
from squeezedet.runtime import DEFAULT_MODEL

if TYPE_CHECKING:
    from squeezedet.detections import Detections
    from squeezedet.media.images import Frame
    from squeezedet.media.sinks import RecordOptions
    from squeezedet.media.sources import Failure, MediaSource
    from squeezedet.media.video import Reconnect
    from squeezedet.runtime.detector import FrameStream

    Sink = Callable[[Frame, Detections], object]


class DetectRun:
    """Detects in one image after the other and keeps what the end of the command needs.

    Args:
        model, engine, threads: what to load, see ``squeezedet.runtime.detector.load``.
        score: lowest score to report; None for the model's own.
        trust_model: run a file that is a program, see there.
        require_signature: public keys of which one must have signed the model, see there.
        classes: names of the classes to report; None for all.
        track: give boxes the ids of their objects.
        quiet: say nothing but errors.
        keep_timings: for ``summary.timing``.

    Attributes:
        failures: exit code of each source that gave no image, not all of it, or ended.
        summary: what was found so far.
    """

    def __init__(
        self,
        model: str,
        engine: str | None,
        threads: int | None,
        *,
        score: float | None,
        classes: tuple[str, ...] | None,
        track: bool,
        quiet: bool,
        keep_timings: bool,
        trust_model: bool = False,
        require_signature: str | None = None,
    ) -> None:
        from squeezedet.media.summary import Summary

        self.failures: list[int] = []
        self.summary = Summary(keep_timings)
        self._model, self._engine, self._threads = model, engine, threads
        self._trust_model, self._require_signature = trust_model, require_signature
        self._score, self._classes, self._track, self._quiet = score, classes, track, quiet

    def detect(self, items: Iterable[Frame | Failure]) -> Iterator[tuple[Frame, Detections]]:
        """What is found in each image that can be used; the others are named and counted."""
        from squeezedet.media.sources import Failure

        stream = None
        for item in items:
            if isinstance(item, Failure):
                self.failures.append(item.error.exit_code)
                self.warn(_in_options(item.error))
                continue
            if stream is None:  # without any image there is no need to wait for the model
                stream = self._load()
            if self.summary.begins(item):
                self._end_of_video()
            for note in item.notes:
                self.say(note)
            detections = stream.detect(item)
            self.summary.add(item, detections)
            yield item, detections

    def end(self) -> None:
        """Say what is to be said of the last video, and of all together."""
        self._end_of_video()
        if self.summary.images > 1:
            self.say(self.summary.total())

    def say(self, sentence: str) -> None:
        """A note on standard error."""
        if not self._quiet:
            print(f"squeezedet: {sentence}", file=sys.stderr)

    @staticmethod
    def warn(sentence: str) -> None:
        """What went wrong, on standard error."""
        print(f"squeezedet: {sentence}", file=sys.stderr)

    def _end_of_video(self) -> None:
        if sentence := self.summary.video():
            self.say(sentence)

    def _load(self) -> FrameStream:
        from squeezedet.runtime.detector import FrameStream, load

        detector = load(
            self._model,
            engine=self._engine,
            threads=self._threads,
            trust_model=self._trust_model,
            require_signature=self._require_signature,
        )
        return FrameStream(detector, self._score, classes=self._classes, track=self._track)


def _in_options(error: SqueezeDetError) -> str:
    """The sentence of an error, with the command's options for the library's parameters."""
    return re.sub("`([a-z_]+)`", lambda found: "--" + found[1].replace("_", "-"), str(error))


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


EXAMPLES = """\
  squeezedet detect street.jpg
  squeezedet detect photos --save annotated
  squeezedet detect 'trip/*.png' -o boxes.json
  squeezedet detect photos --format csv > boxes.csv
  curl -s https://example.org/street.jpg | squeezedet detect -
  squeezedet detect drive.mp4 --track --save out.mp4 --jsonl out.jsonl
  squeezedet detect 'rtsp://camera/stream' --show
"""

MANY = 4
"""From so many images on there is a progress bar."""


class Format(StrEnum):
    """The record formats, see ``squeezedet.media.sinks``."""

    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    coco = "coco"
    labelstudio = "labelstudio"
    kitti = "kitti"
    yolo = "yolo"
    voc = "voc"


def detect(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Image, folder, quoted pattern, http(s) address, or - for standard input; video, "
            "rtsp:// address or camera (0, /dev/video0); trip/%06d.jpg for numbered pictures.",
            show_default=False,
        ),
    ],
    *,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|PATH", help="A shipped model or a bundle.")
    ] = DEFAULT_MODEL,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score to report [default: the model's own, mostly 0.4].")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="Write annotated pictures (STEM.jpg) and videos (STEM.mp4) into this folder, or "
            "one into this file (.mp4, .mov, .mkv; .jpg, .png).",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            "--output",
            "--json",
            metavar="FILE|DIR|-",
            help="Write records to this file, or - for standard output; the suffix decides the "
            "format (.json, .jsonl, .csv). kitti, yolo and voc fill a folder. jsonl and csv grow "
            "image by image, the others appear when they are whole.",
        ),
    ] = None,
    jsonl: Annotated[str | None, typer.Option(metavar="FILE|-", help="The same as --out FILE --format jsonl.")] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Format of the records [default: that of the suffix, or json]; without --out "
            "they go to standard output.",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For coco: a COCO file whose image and category ids to use.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Report these classes only [default: all of the model].")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Look into the folders of a folder, too.")
    ] = False,
    track: Annotated[bool, typer.Option("--track", help="Give the boxes of one object one id, over frames.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Show frames in a window; q closes it and ends.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Sources are live videos: frames that come too fast drop.")
    ] = False,
    reconnect: ReconnectTimes = 10,
    stall: Stall = 10.0,
    fps: Annotated[float, typer.Option(min=0.01, help="Pictures a second of a video made of pictures.")] = 10.0,
    trust_model: TrustModel = False,
    require_signature: RequireSignature = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|auto",
            help="What runs the model: onnxruntime, openvino, ncnn, torch; auto for the fastest "
            "[default: onnxruntime].",
        ),
    ] = None,
    timing: Annotated[bool, typer.Option("--timing", help="Print the median time of each stage.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No table, notes or progress bar; only errors.")] = False,
    max_pixels: Annotated[int | None, typer.Option(min=1, help="Refuse larger images [default: 80 million].")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads [default: all cores].")] = None,
) -> None:
    """Find cars, pedestrians and cyclists in images and videos.

    Prints a table for each image: class, score and box (x1, y1, x2, y2 in pixels of the
    image), and a line for each frame of a video. An image that cannot be used is named on
    standard error and the others go on; the exit code is then 3.
    """
    from squeezedet.media.images import MAX_PIXELS
    from squeezedet.media.prefetch import BackgroundWriter
    from squeezedet.media.sinks import STDOUT, VIDEO_KINDS, RecordOptions, names_video, saving
    from squeezedet.media.sources import MediaSource, locate
    from squeezedet.media.summary import describe
    from squeezedet.media.video import Reconnect

    output, kind = _records_target(output, jsonl, form)
    located = locate(sources, recursive=recursive, live=live)
    readable = [item for item in located if isinstance(item, MediaSource)]
    kinds = {source.kind for source in readable}
    video = bool(kinds & set(VIDEO_KINDS))
    options = RecordOptions(timed=video, live="live" in kinds, tracked=track, labels=labels)
    run = DetectRun(
        *(model, engine, threads),
        score=score,
        classes=_names(classes),
        track=track,
        quiet=quiet,
        keep_timings=timing,
        trust_model=trust_model,
        require_signature=require_signature,
    )
    whole = video or show or bool(save and names_video(save))
    with VideoStop(whole) as stop, ExitStack() as stack:
        sinks: list[Sink] = []
        if not quiet and output != STDOUT:
            sinks.append(lambda _, detections: print(describe(detections)))
        if save:
            saver = stack.enter_context(saving(save, readable, fps, run.say))
            sinks.append(stack.enter_context(BackgroundWriter(saver)))
        if output:
            sinks.append(stack.enter_context(_records(output, kind, options)))
        if show:
            sinks.append(stack.enter_context(_window(sources[0], stop)))
        again = Reconnect(say=run.warn, attempts=reconnect, stall_s=stall)
        items = _items(stack, located, max_pixels or MAX_PIXELS, again)
        if not quiet and not video and _bar_fits(len(located), on_stdout=output == STDOUT):
            items = stack.enter_context(_progress(items, len(located)))
        for frame, detections in run.detect(stop.before(items)):
            for sink in sinks:
                sink(frame, detections)
        run.end()
    if timing and run.summary.timings:
        text = run.summary.timing()
        print(text, file=sys.stderr if output == STDOUT else sys.stdout)
    _leave(interrupted=stop.asked, failures=run.failures)


def _leave(*, interrupted: bool, failures: Sequence[int]) -> None:
    """The exit code that is due; all files are whole by now."""
    if interrupted:
        raise KeyboardInterrupt
    if failures:
        raise typer.Exit(max(failures))


def _names(classes: str | None) -> tuple[str, ...] | None:
    return None if classes is None else tuple(name.strip() for name in classes.split(","))


def _records_target(output: str | None, jsonl: str | None, form: Format | None) -> tuple[str | None, str | None]:
    """Where records go and in which format; a format alone goes to standard output."""
    from squeezedet.media.sinks import record_format

    if jsonl is not None:
        if output or form:
            raise UsageError("--jsonl FILE is --out FILE --format jsonl: give one of the two")
        return jsonl, record_format(jsonl, "jsonl") if jsonl.endswith(".csv") else "jsonl"
    output = output or ("-" if form else None)
    return output, record_format(output, form) if output else None


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
def _records(output: str, kind: str | None, options: RecordOptions) -> Iterator[Sink]:
    from squeezedet.media.sinks import record_sink

    with record_sink(output, kind, options) as write:
        yield lambda _, detections: write(detections)


@contextmanager
def _window(title: str, stop: VideoStop) -> Iterator[Sink]:
    """A window for ``--show``; closing it ends the frames."""
    from squeezedet.media.kinds import without_password
    from squeezedet.media.window import Window

    with Window(without_password(title)) as window:

        def show(frame: Frame, detections: Detections) -> None:
            window.show(detections.draw(frame.pixels))
            if window.closed:
                stop.end()

        yield show


def _bar_fits(images: int, *, on_stdout: bool) -> bool:
    """Only for many images, on a terminal, and where no records would run into it."""
    return images >= MANY and sys.stderr.isatty() and not (on_stdout and sys.stdout.isatty())


@contextmanager
def _progress(items: Iterable[Frame | Failure], total: int) -> Iterator[Iterable[Frame | Failure]]:
    """The same items with a bar on standard error that shows how many there are to come."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # On a terminal the tables scroll above the bar; where they go to a file they stay untouched.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as progress:
        yield progress.track(items, total=total)
