"""The folder of a run: what the run works with, and all that it writes there beside checkpoints.

``config.toml`` is its record, ``metrics.csv`` its log, ``index.html`` one page with charts, pictures and settings that
needs no network.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from squeezedet.benchmark.machine import describe
from squeezedet.charts import Axis, Series, line_chart
from squeezedet.data.sample import ClassMap, Sample
from squeezedet.detections import Detections
from squeezedet.drawing import draw_boxes, encode_picture
from squeezedet.errors import DataError, SqueezeDetError
from squeezedet.evaluation.report import confusion_rows, precision_chart
from squeezedet.files import one_sentence, open_regular, read_text, remove_partial, write_atomic
from squeezedet.media.images import read_image
from squeezedet.pages import PAGE, picture_url, svg, write_page
from squeezedet.training import checkpoint
from squeezedet.training.augment import Example
from squeezedet.training.distributed import job
from squeezedet.training.recipe import Recipe, even_sample, to_toml
from squeezedet.training.validate import MEASURES, SHOWN_SCORE
from squeezedet.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image

    from squeezedet.training.callbacks import Callback
    from squeezedet.training.trainer import Trainer

LAST = "last.safetensors"
METRICS = "metrics.csv"
RECORD = "config.toml"
PICTURES, PREDICTIONS = "pictures", "predictions.png"
BATCHES_DRAWN = 3
LOG = logging.getLogger("squeezedet.training")
SAMPLED_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run works with.

    Attributes:
        folder: gets all that the run writes, see docs/training.md.
        train: labelled images to learn from.
        val: labelled images to validate on; may be empty.
        class_map: which label types are learned.
        recipe: how.
        quiet: print nothing.
        max_seconds: stop after so many, with everything that a run's end brings.
        callbacks: told of every step, validation and checkpoint.
        name, data, command: for the record: of the model, where the images come from, what was called.
    """

    folder: Path
    train: Sequence[Sample]
    val: Sequence[Sample]
    class_map: ClassMap
    recipe: Recipe
    quiet: bool = False
    max_seconds: float = math.inf
    callbacks: Sequence[Callback] = ()
    name: str = ""
    data: str = ""
    command: str = ""

    @property
    def last(self) -> Path:
        return self.folder / LAST

    @property
    def best(self) -> Path:
        return self.folder / "best.safetensors"


# What a run writes: a killed one leaves unfinished files of these names, and of no others.
FILES = (
    *(LAST, "best.safetensors", METRICS, RECORD, PAGE, f"{PICTURES}/{PREDICTIONS}"),
    *(f"{PICTURES}/batch-{step}.png" for step in range(BATCHES_DRAWN)),
)


def remove_partial_files(folder: Path) -> None:
    for name in FILES:
        remove_partial(folder / name)


def fingerprint(samples: Sequence[Sample], class_map: ClassMap) -> str:
    """A checksum of what is learned: ids, labels, and what the labels mean."""
    digest = hashlib.sha256(repr(class_map).encode())
    for sample in samples:
        digest.update(f"{sample.id} {sample.objects.types}".encode(errors="surrogateescape"))
        digest.update(sample.objects.xyxy.tobytes())
    return digest.hexdigest()


def image_fingerprint(samples: Sequence[Sample]) -> str:
    """A checksum of the image files: the size of each, its first and its last 64 kB."""
    digest = hashlib.sha256()
    for sample in samples:
        with open_regular(sample.image, what="image") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{size} ".encode() + file.read(SAMPLED_BYTES))
            if size > SAMPLED_BYTES:
                file.seek(max(SAMPLED_BYTES, size - SAMPLED_BYTES))
                digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()


# ------------------------------------------------------------ config.toml


def write_run_config(trainer: Trainer) -> None:
    """Write the record, or add to it what was called now; its recipe can be read back as ``config``."""
    run, path = trainer.run, trainer.run.folder / RECORD
    called = f"{datetime.now(UTC).isoformat(timespec='seconds')} {run.command}".strip()
    before = [str(call) for call in read_record(path).get("calls") or []]
    class_map = asdict(run.class_map)
    machine = describe()
    text = to_toml(
        {
            "recipe": asdict(trainer.recipe),
            "network": asdict(trainer.detector.config),
            "class_map": class_map | {"aliases": dict(class_map["aliases"])},
            "input": asdict(trainer.detector.input_rule),
            "run": {
                "name": run.name,
                "detector": trainer.detector.kind,
                "seed": trainer.recipe.seed,
                "calls": [*before, called],
                "torchrun": job(),
                "data": {
                    "path": run.data,
                    "train_images": len({sample.image for sample in run.train}),
                    "val_images": len(run.val),
                    "fingerprint": trainer.data,
                    "images_fingerprint": trainer.images,
                },
                "versions": {
                    "squeezedet": __version__,
                    "python": machine.python,
                    "torch": torch.__version__,
                    "numpy": np.__version__,
                },
                "machine": {
                    "system": machine.system,
                    "processor": machine.cpu,
                    "cores": machine.cores,
                    "threads": torch.get_num_threads(),
                },
            },
        }
    )
    write_atomic(path, text)


def read_record(path: Path) -> dict[str, Any]:
    """The table [run] of a ``config.toml``; nothing where there is none that can be read."""
    try:
        record = tomllib.loads(read_text(path))["run"]
    except (SqueezeDetError, ValueError, KeyError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


# ------------------------------------------------------------ metrics.csv

Cells = dict[str, str]
"""A row as it stands in the file."""


def read_metrics(path: Path, last_step: int | None = None) -> list[Cells]:
    """The rows of ``metrics.csv``, up to a step; a DataError where the file is damaged.

    A run that was killed may have left half a line, and one that resumes goes back a few steps.
    """
    if not path.is_file():
        return []
    whole = read_text(path, "log").rpartition("\n")[0]
    try:
        rows = list(csv.DictReader(io.StringIO(whole)))
        for row in rows:
            int(row["step"])
            for cell in row.values():
                float(cell or 0)
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({error}); move it away, the run goes on without it") from error
    return [row for row in rows if last_step is None or int(row["step"]) <= last_step]


class MetricsLog:
    """Rows of ``metrics.csv``: step, images per second, learning rate, loss terms, validation.

    A run that resumes drops the rows after its step. A row is appended, unless it has a column that the file has not:
    then the file is written anew.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        self.rows = read_metrics(path, last_step) if last_step else []
        self._columns: list[str] = list(self.rows[0]) if self.rows else []
        if path.exists():
            self._write()

    def add(self, values: Mapping[str, float | int | None]) -> None:
        """Add one row; None is an empty cell."""
        row = {k: _cell(value) for k, value in values.items()}
        self.rows.append(row)
        new = [key for key in row if key not in self._columns]
        if new:
            self._columns += new
            self._write()
            return
        with one_sentence(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(self._text([row]))

    def _write(self) -> None:
        head = dict(zip(self._columns, self._columns, strict=True))
        write_atomic(self.path, self._text([head, *self.rows]) if self._columns else "")

    def _text(self, rows: Sequence[Cells]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(rows)
        return text.getvalue()


def _cell(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------ pictures

IMAGES_SHOWN = 6
PICTURE_WIDTH, COLUMNS, GAP = 1280, 2, 8
REGION = "no loss"


def draw_batch(run: Run, step: int, examples: Sequence[Example]) -> None:
    """Write ``pictures/batch-STEP.png``: the images of a step with the boxes to learn."""
    names, drawn = run.class_map.names, []
    for example in examples:
        labels = [names[i] for i in example.class_id] + [REGION] * len(example.regions)
        class_id = np.append(example.class_id, [len(names)] * len(example.regions)).astype(int)
        boxes = np.concatenate([example.xyxy, example.regions])
        drawn.append(draw_boxes(example.pixels, boxes, labels, class_id))
    _write_picture(run.folder / PICTURES / f"batch-{step}.png", drawn)


def draw_detections(run: Run, found: Sequence[Detections]) -> None:
    """Write ``pictures/predictions.png``: what is found in the same few validation images every time."""
    by_image = {id(sample): detections for sample, detections in zip(run.val, found, strict=True)}
    drawn = []
    for sample in even_sample(run.val, IMAGES_SHOWN):
        detections = by_image[id(sample)]
        sure = detections.score >= SHOWN_SCORE
        class_id, score = detections.class_id[sure], detections.score[sure]
        labels = [f"{detections.names[i]} {s:.2f}" for i, s in zip(class_id, score, strict=True)]
        drawn.append(draw_boxes(read_image(sample.image).pixels, detections.xyxy[sure], labels, class_id))
    _write_picture(run.folder / PICTURES / PREDICTIONS, drawn)


def _write_picture(path: Path, pictures: Sequence[Image]) -> None:
    """Several pictures in two columns, each as wide as a column."""
    from PIL import Image

    side = (PICTURE_WIDTH - (COLUMNS - 1) * GAP) // COLUMNS
    scaled = [p.resize((side, max(1, round(side * p.height / p.width)))) for p in pictures]
    rows = [scaled[i : i + COLUMNS] for i in range(0, len(scaled), COLUMNS)]
    heights = [max(picture.height for picture in row) for row in rows]
    canvas = Image.new("RGB", (PICTURE_WIDTH, sum(heights) + GAP * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for k, picture in enumerate(row):
            canvas.paste(picture, (k * (side + GAP), top))
        top += height + GAP
    write_atomic(path, encode_picture(canvas, "PNG"))


# ------------------------------------------------------------ the page

ROWS_SHOWN = 30
MAX_LINES = 7
"""With more classes than this the chart shows their mean alone."""
MEAN, TRAINING = "all classes", "training images"
NO_LOSS = ("step", "images_per_s", "learning_rate", "grad_norm")


def write_run_page(run: Run, rows: Sequence[Cells]) -> Path:
    """Write ``index.html`` from ``rows`` of metrics.csv and what is in the run folder."""
    prefix, measure = MEASURES[run.recipe.protocol]
    precisions = _precisions(rows, prefix)
    no_loss = (f"{prefix}_", f"train_{prefix}")
    losses = [name for name in (rows[0] if rows else ()) if name not in NO_LOSS and not name.startswith(no_loss)]
    shown = [name for name in precisions if len(precisions) <= MAX_LINES or name in (MEAN, TRAINING)]
    step, charts = Axis("step", low=0), []
    if losses:
        charts.append(line_chart("Loss, by its terms", [_curve(rows, n) for n in losses], x=step, y=Axis(log=True)))
    if shown:
        lines = [Series(name, list(precisions[name]), list(precisions[name].values())) for name in shown]
        charts.append(line_chart(f"{measure} on the validation images", lines, x=step, y=Axis(low=0)))
    if rows:
        charts.append(line_chart("Images per second", [_curve(rows, "images_per_s")], x=step, y=Axis(low=0)))
    record = run.folder / RECORD
    return write_page(
        run.folder / PAGE,
        "training.html",
        title=f"Training run {run.folder.resolve().name}",
        step=int(rows[-1]["step"]) if rows else 0,
        steps=run.recipe.steps,
        train=len({sample.image for sample in run.train}),
        val=len(run.val),
        charts=[svg(chart) for chart in charts],
        validations=_validations(precisions),
        caption=f"{measure} in %, of the averaged weights where a run averages; a class without an object is left out",
        best=_best(run),
        photographs=_photographs(run.folder / PICTURES),
        settings=read_text(record) if record.is_file() else "",
    )


def _curve(rows: Sequence[Cells], column: str) -> Series:
    points = [(float(row["step"]), float(row[column])) for row in rows if row.get(column)]
    return Series(column, [x for x, _ in points], [y for _, y in points])


def _precisions(rows: Sequence[Cells], prefix: str) -> dict[str, dict[float, float]]:
    """Class -> step of a validation -> average precision; so their mean, and that on the training images."""
    curves: dict[str, dict[float, float]] = {}
    for row in rows:
        found = {n.partition("_")[2]: float(ap) for n, ap in row.items() if n.startswith(f"{prefix}_") and ap}
        if found:
            found[MEAN] = fmean(found.values())
        if row.get(f"train_{prefix}"):
            found[TRAINING] = float(row[f"train_{prefix}"])
        for name, ap in found.items():
            curves.setdefault(name, {})[float(row["step"])] = ap
    return curves


def _validations(precisions: Mapping[str, Mapping[float, float]]) -> list[list[str]]:
    """The table of the last validations; nothing without one."""
    steps = sorted({step for curve in precisions.values() for step in curve})[-ROWS_SHOWN:]
    table = [["step", *precisions]] if steps else []
    for step in steps:
        cells = [f"{100 * curve[step]:.1f}" if step in curve else "" for curve in precisions.values()]
        table.append([f"{step:.0f}", *cells])
    return table


def _best(run: Run) -> Mapping[str, Any] | None:
    """Precision against recall, and confusion, as ``best.safetensors`` says; None where it does not."""
    metadata = checkpoint.read_metadata(run.best) if run.best.is_file() else {}
    figures = metadata.get("figures")
    return figures and {
        "step": metadata["step"],
        "charts": [precision_chart(name, {name: curve}) for name, curve in figures["precision"].items()],
        "confusion": confusion_rows(figures["classes"], figures["confusion"]),
        "score": f"{SHOWN_SCORE:g}",
    }


def _photographs(folder: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    from PIL import Image

    parts = []
    for title, pattern in (("Found now", PREDICTIONS), ("The first batches", "batch-*.png")):
        shown = []
        for path in sorted(folder.glob(pattern)):
            with Image.open(path) as picture:
                shown.append((path.stem, picture_url(picture.convert("RGB"))))
        if shown:
            parts.append((title, shown))
    return parts
