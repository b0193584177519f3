"""``squeezedet detect``: images in, boxes out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squeezedet.errors import DataError

if TYPE_CHECKING:
    from squeezedet.detections import Detections
    from squeezedet.media.images import Frame
    from squeezedet.media.sources import Failure

EXAMPLES = """\
  squeezedet detect street.jpg
  squeezedet detect photos --save annotated
  squeezedet detect 'trip/*.png' --json boxes.json
  squeezedet detect photos --format csv > boxes.csv
  curl -s https://example.org/street.jpg | squeezedet detect -
"""

MANY = 4
"""From so many images on there is a progress bar."""


class Format(StrEnum):
    """The record formats, see ``squeezedet.media.records``."""

    json = "json"
    jsonl = "jsonl"
    kitti = "kitti"
    coco = "coco"
    csv = "csv"


def detect(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Image, folder, quoted pattern, http(s) address, or - for standard input.",
            show_default=False,
        ),
    ],
    *,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|PATH", help="A shipped model or a bundle.")
    ] = "squeezedet",
    score: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Lowest score to report [default: the model's own, mostly 0.4]."
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write annotated pictures (STEM.jpg) into this folder."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--json",
            "--output",
            "-o",
            metavar="FILE|-",
            help="Write records to this file (for kitti a folder), or - for standard output; "
            "jsonl grows image by image, the others appear when they are whole.",
        ),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Format of the records [default: json]; without --json they go to standard "
            "output, but kitti needs --json DIR.",
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Look into the folders of a folder, too.")
    ] = False,
    timing: Annotated[
        bool, typer.Option("--timing", help="Print the median time of each stage.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No table, notes or progress bar; only errors.")
    ] = False,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Refuse larger images [default: 80 million].")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Processor threads [default: all cores].")
    ] = None,
) -> None:
    """Find cars, pedestrians and cyclists in images.

    Prints a table for each image: class, score and box (x1, y1, x2, y2 in pixels of the
    image). An image that cannot be used is named on standard error and the others go on;
    the exit code is then 3.
    """
    from squeezedet.media.images import MAX_PIXELS
    from squeezedet.media.pictures import PictureFolder
    from squeezedet.media.records import STDOUT, records
    from squeezedet.media.sources import Source, frames, locate
    from squeezedet.media.table import describe, describe_timing

    output = output or (STDOUT if form else None)
    located = locate(sources, recursive=recursive)
    run = _Run(model, score, threads)
    with ExitStack() as stack:
        files = [item.name for item in located if isinstance(item, Source) and item.kind == "file"]
        pictures = PictureFolder(save, files) if save else None
        write = stack.enter_context(records(output, form or Format.json)) if output else None
        items = frames(located, max_pixels=max_pixels or MAX_PIXELS)
        show_bar = not quiet and _bar_fits(len(located), on_stdout=output == STDOUT)
        bar = stack.enter_context(_progress(items, len(located))) if show_bar else items
        for frame, detections in run.detect(bar):
            if not quiet:
                for note in frame.notes:
                    print(f"squeezedet: {note}", file=sys.stderr)
            if not quiet and output != STDOUT:
                print(describe(detections))
            if write:
                write(detections)
            if pictures:
                pictures.write(frame, detections)
    if timing and run.timings:
        print(describe_timing(run.timings), file=sys.stderr if output == STDOUT else sys.stdout)
    if run.failures:
        raise typer.Exit(DataError.exit_code)


class _Run:
    """Detects in one image after the other and keeps what the end of the command needs.

    Attributes:
        timings: ``timing_ms`` of each image.
        failures: number of sources that gave no image.
    """

    def __init__(self, model: str, score: float | None, threads: int | None) -> None:
        self.timings: list[Mapping[str, float]] = []
        self.failures = 0
        self._model, self._score, self._threads = model, score, threads

    def detect(self, items: Iterable[Frame | Failure]) -> Iterator[tuple[Frame, Detections]]:
        """What is found in each image that can be used; the others are named and counted."""
        from squeezedet.media.sources import Failure

        detector = None
        for item in items:
            if isinstance(item, Failure):
                self.failures += 1
                print(f"squeezedet: {item.error}", file=sys.stderr)
                continue
            if detector is None:  # without any image there is no need to wait for the model
                from squeezedet.runtime.detector import load

                detector = load(self._model, threads=self._threads)
            detections = detector.detect(item, self._score)
            self.timings.append(detections.timing_ms)
            yield item, detections


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
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        yield progress.track(items, total=total)
