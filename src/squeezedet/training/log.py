"""What a run tells: ``metrics.csv``, and a progress bar or plain lines."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from squeezedet.files import write_atomic


class MetricsLog:
    """Rows of ``metrics.csv``: step, images per second, learning rate, loss terms, validation.

    A run that resumes drops the rows after the step it resumes from.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        rows: list[dict[str, str]] = []
        if first_step and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= first_step]
        self._rows = rows

    def add(self, values: Mapping[str, float | int]) -> None:
        """Add one row; the file is written anew, so that new columns find their place."""
        self._rows.append(
            {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in values.items()}
        )
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomic(self.path, text.getvalue())


class Means:
    """Mean losses of the steps since they were last taken, and how fast those went."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self.restart()

    def restart(self) -> None:
        """Forget the steps so far, and start the clock."""
        self._steps: list[Mapping[str, float]] = []
        self._start = time.monotonic()

    def add(self, terms: Mapping[str, float]) -> None:
        """The losses of one more step."""
        self._steps.append(terms)

    def take(self) -> tuple[dict[str, float], float]:
        """Mean of each loss, and images per second; then starts anew."""
        images_per_s = len(self._steps) * self._batch / (time.monotonic() - self._start)
        names = self._steps[0]
        means = {name: sum(s[name] for s in self._steps) / len(self._steps) for name in names}
        self.restart()
        return means, images_per_s


class Progress:
    """A bar with losses, images per second and time left; plain lines when not a terminal."""

    def __init__(self, steps: int, first_step: int, quiet: bool = False) -> None:
        self.steps, self.quiet = steps, quiet
        self._start, self._first = time.monotonic(), first_step
        self._bar = None
        if not quiet and sys.stderr.isatty():
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                transient=False,
            )
            self._task = self._bar.add_task("training", total=steps, completed=first_step, text="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, step: int) -> None:
        """One more step is done."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, terms: Mapping[str, float], images_per_s: float) -> None:
        """Show the mean losses of the last steps."""
        losses = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
        if self._bar:
            self._bar.update(self._task, text=f"{losses}  {images_per_s:.1f} img/s")
        else:
            done = max(1, step - self._first)
            left = (time.monotonic() - self._start) / done * (self.steps - step)
            speed = f"{images_per_s:.1f} img/s  {left / 60:.0f} min left"
            self.say(f"step {step}/{self.steps}  {losses}  {speed}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.quiet:
            return
        if self._bar:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)
