"""The log of a run: ``metrics.csv``, mean losses, and a progress bar or plain lines."""

from __future__ import annotations

import csv
import io
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from squeezedet.errors import DataError
from squeezedet.files import one_sentence, read_text, write_atomic

LOG = logging.getLogger("squeezedet.training")
Row = dict[str, str]


def read_metrics(path: Path, last_step: int | None = None) -> list[Row]:
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

    def _text(self, rows: Sequence[Row]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(rows)
        return text.getvalue()


def _cell(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


class RunningMeans:
    """Mean losses of the ``steps`` since they were last taken (a checkpoint holds them), and how fast those went."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self.steps: list[Mapping[str, float]] = []
        self.restart()

    def restart(self) -> None:
        self._timed, self._start = 0, time.monotonic()

    def add(self, terms: Mapping[str, float]) -> None:
        self.steps.append(terms)
        self._timed += 1

    def take(self) -> tuple[dict[str, float], float]:
        """Mean of each loss, and images per second; then starts anew."""
        images_per_s = self._timed * self._batch / max(time.monotonic() - self._start, 1e-9)
        names = self.steps[0] if self.steps else {}
        means = {name: sum(s[name] for s in self.steps) / len(self.steps) for name in names}
        self.steps = []
        self.restart()
        return means, images_per_s


class Progress:
    """A bar with loss, images per second and time left; plain lines when not a terminal."""

    def __init__(self, steps: int, first_step: int, quiet: bool = False) -> None:
        self.steps, self.quiet = steps, quiet
        self._start, self._first = time.monotonic(), first_step
        self._bar = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            # About 70 columns beside a bar of 16: the time left is never cut off.
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(bar_width=16),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(compact=True),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("training", total=steps, completed=first_step, text="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, step: int) -> None:
        if self._bar:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, terms: Mapping[str, float], images_per_s: float) -> None:
        """Show the mean losses of the last steps."""
        losses = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
        if self._bar:
            total = sum(value for name, value in terms.items() if name != "grad_norm")
            self._bar.update(self._task, text=f"loss {total:.4g}  {images_per_s:.3g} img/s")
            LOG.debug("step %d/%d  %s  %.1f img/s", step, self.steps, losses, images_per_s)
        else:
            done = max(1, step - self._first)
            left = (time.monotonic() - self._start) / done * (self.steps - step)
            speed = f"{images_per_s:.1f} img/s  {left / 60:.0f} min left"
            self.message(f"step {step}/{self.steps}  {losses}  {speed}")

    def message(self, text: str) -> None:
        """Log a line, and print it above the bar unless the run is quiet."""
        LOG.info("%s", text)
        if self.quiet:
            return
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)
