"""Detections as records: one file for all images, or for KITTI one file per image.

=======  ==========================================================================
json     one array of ``{"image", "width", "height", "detections", "timing_ms"}``
jsonl    the same records, one a line, each written as soon as its image is done
csv      a header and one line per box; an image without boxes has no line; videos add a
         column ``time_s``, tracking one ``track_id``
coco     a COCO results list; ``image_id`` is the image's stem, as a number if it
         consists of digits (``000042.png`` is 42); ``category_id`` counts from 1
         in the order of the model's class names
kitti    a folder with ``STEM.txt`` for each image, empty if there are no boxes; its
         files have no place for the ids of tracks
=======  ==========================================================================

A jsonl file is there from the start and grows line by line. The others appear when they
are whole; an interrupted run leaves an older file as it was.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from squeezedet.detections import Detections
from squeezedet.errors import UsageError
from squeezedet.media.output import (
    UniqueStems,
    check_file,
    growing_file,
    make_folder,
    text_file,
)

STDOUT = "-"
FORMATS = ("json", "jsonl", "kitti", "coco", "csv")
CSV_HEADER = ("image", "class", "score", "x1", "y1", "x2", "y2")

Write = Callable[[Detections], None]


@contextmanager
def records(
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
        raise UsageError(f"no format {form!r}; there are {', '.join(FORMATS)}")
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
