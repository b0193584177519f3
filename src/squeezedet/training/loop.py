"""The training loop: a detector, labelled images and a recipe go in, a run folder comes out.

``squeezedet.training.train.train`` is the door to it.
"""

from __future__ import annotations

import copy
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from squeezedet.errors import DataError, SqueezeDetError, UsageError
from squeezedet.files import Interrupts, lock
from squeezedet.models.network import DetectionNetwork
from squeezedet.training.batches import Examples, batches, examples_of_step
from squeezedet.training.distributed import SINGLE_PROCESS, Processes
from squeezedet.training.recipe import Recipe, even_sample, rate, shortened
from squeezedet.training.run_folder import (
    BATCHES_DRAWN,
    METRICS,
    MetricsLog,
    Run,
    draw_batch,
    draw_detections,
    read_metrics,
    remove_partial_files,
    write_run_config,
    write_run_page,
)
from squeezedet.training.trainer import Trainer
from squeezedet.training.validate import MEASURES, Validation, detect_all

# ------------------------------------------------------------ what is told of a run

LOG = logging.getLogger("squeezedet.training")
REPORT_EVERY = 25


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


class Reporter:
    """Writes everything of the run folder that is no checkpoint, and calls the callbacks.

    Of several processes the first does; the others take part in every validation, and write nothing.
    """

    def __init__(self, trainer: Trainer, progress: Progress) -> None:
        self.trainer, self.progress, self.run = trainer, progress, trainer.run
        first = trainer.processes.first
        self.log = MetricsLog(self.run.folder / METRICS, trainer.reported) if first else None
        self.callbacks = self.run.callbacks if first else ()

    def call(self, event: str, *values: Any) -> None:
        """Tell all callbacks of one event; where one raises an exception, the state is saved and the run ends."""
        for callback in self.callbacks:
            try:
                getattr(callback, event)(*values)
            except SqueezeDetError:
                self.trainer.save()
                raise
            except Exception as error:
                self.trainer.save()
                raise SqueezeDetError(
                    f"callback {type(callback).__name__}.{event} failed: {type(error).__name__}: {error}; "
                    "the run is saved, continue it with `resume=True`"
                ) from error

    def begin(self, examples: Examples) -> None:
        """The run begins, or goes on: draw the first batches, and write a page without figures."""
        trainer = self.trainer
        self.call("on_start", self.run, trainer.reported)
        if trainer.step or not self.log:
            return
        for step in range(min(BATCHES_DRAWN, trainer.recipe.steps)):
            some = examples_of_step(examples, trainer.detector, trainer.recipe, step)
            draw_batch(self.run, step, some)
        write_run_page(self.run, self.log.rows)

    def step(self, losses: Mapping[str, float]) -> None:
        self.progress.step(self.trainer.step)
        self.call("on_step", self.trainer.step, losses)

    def save(self) -> None:
        self.trainer.save()
        self.call("on_checkpoint", self.trainer.step, self.run.last)

    def due(self, last: bool = False) -> bool:
        """Whether a row is due that has not been written; ``last``: the run ends here."""
        trainer = self.trainer
        now = trainer.step % REPORT_EVERY == 0 or trainer.step == trainer.recipe.steps or last
        return trainer.due(last) or (now and trainer.reported < trainer.step)

    def report(self, last: bool = False) -> None:
        """Show how the last steps went, validate if it is time, and write the row of the log."""
        trainer = self.trainer
        losses, images_per_s = trainer.means.take()
        due = trainer.due(last)
        if self.log:
            self.progress.report(trainer.step, losses, images_per_s)
            if due and self.run.val:
                self.progress.message(f"step {trainer.step}: validating on {len(self.run.val):,} images")
        val, train = trainer.evaluate() if due else (None, None)
        trainer.reported = trainer.step
        if not self.log:
            return
        row: dict[str, float | int | None] = {
            "step": trainer.step,
            "images_per_s": images_per_s,
            "learning_rate": rate(trainer.recipe, trainer.step - 1),
            **losses,
            **self._columns(val, train),
        }
        self.log.add(row)
        if val:
            self._show(val, train)
            draw_detections(self.run, val.found)
        if due:
            write_run_page(self.run, self.log.rows)
            trainer.means.restart()
        self.call("on_report", row)
        if val:
            self.call("on_validation", trainer.step, val)

    def _columns(self, val: Validation | None, train: Validation | None) -> dict[str, float | None]:
        """The AP of each class, empty without a validation, so that columns are always the same."""
        column = MEASURES[self.trainer.recipe.protocol][0]
        ap = val.ap if val else {}
        columns = {f"{column}_{name}": ap.get(name) for name in self.run.class_map.names if self.run.val}
        if self.trainer.recipe.early_stop:
            columns[f"train_{column}"] = train.fitness if train else None
        return columns

    def _show(self, val: Validation, train: Validation | None) -> None:
        known = {name: "-" if ap is None else f"{100 * ap:.1f}" for name, ap in val.ap.items()}
        values = "  ".join(f"{name} {ap}" for name, ap in known.items())
        mean = f"mean {100 * val.fitness:.1f}"
        more = f"  train {100 * train.fitness:.1f}" if train else ""
        measure = MEASURES[self.trainer.recipe.protocol][1]
        self.progress.message(f"step {self.trainer.step}: {measure}  {values}  {mean}{more}")


# ------------------------------------------------------------ as many steps as fit into a time

STEPS_TIMED = 3
IMAGES_TIMED = 4
BUNDLE_S = 20.0
"""Export takes about so long."""
MARGIN = 0.9
"""The share of the time that is planned for: steps are not all of one length."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one step, and of one validation."""

    step_s: float
    judge_s: float

    @property
    def end_s(self) -> float:
        """What the end of a run takes: validation, calibration of the scores, export."""
        return 2 * self.judge_s + BUNDLE_S


def measure(detector: DetectionNetwork, run: Run, examples: Examples, processes: Processes = SINGLE_PROCESS) -> Pace:
    """Time a few steps and detections with a copy of the network; of several processes the slowest counts."""
    scratch = Trainer(copy.deepcopy(detector), run, processes)
    taken = []
    with closing(batches(examples, scratch.detector, run.recipe, 0, processes)) as prepared:
        for batch in islice(prepared, STEPS_TIMED):
            start = time.monotonic()
            scratch.learn(batch)
            taken.append(time.monotonic() - start)
    judged = len(run.val) + (run.recipe.early_images if run.recipe.early_stop else 0)
    some = even_sample(run.val or run.train, IMAGES_TIMED)
    start = time.monotonic()
    detect_all(scratch.detector, some)
    judge_s = (time.monotonic() - start) / len(some) * judged / processes.count
    paces = processes.gather(Pace(min(taken), judge_s))
    return Pace(max(p.step_s for p in paces), max(p.judge_s for p in paces))


def in_time(recipe: Recipe, pace: Pace, seconds: float) -> Recipe:
    """The recipe with as many steps, at most its own, as fit into the seconds."""
    one = pace.step_s + pace.judge_s / recipe.validate_every
    steps = max(1, int(MARGIN * (seconds - pace.end_s) / one))
    return recipe if steps >= recipe.steps else shortened(recipe, steps)


# ------------------------------------------------------------ the loop


def run_training(
    detector: DetectionNetwork, run: Run, resume: bool = False, processes: Processes = SINGLE_PROCESS
) -> Path:
    """Train a detector in place; returns the path of the best weights.

    ``resume`` continues from ``last.safetensors``, exactly. Of several processes the first writes the folder, and all
    read it to resume.

    Raises:
        DivergedError: a loss term is not finite.
        UsageError: the folder holds another run, or none to resume; another process trains there; the device is not
            there; or the processes do not work on the same.
        DataError: an image cannot be decoded; what was learned so far is saved.
        SqueezeDetError: the folder cannot be written, or a callback failed; the last checkpoint is whole.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the state is saved.
    """
    if run.last.exists() and not resume:
        raise UsageError(f"{run.folder}: holds a run already; continue it with `resume=True` or use another `out`")
    if resume and not run.last.exists():
        raise UsageError(f"{run.folder}: holds no run to continue; leave out `resume`")
    busy = "another process is training there; wait for it, or use another `out`"
    with lock(run.folder, busy) if processes.first else nullcontext():
        return _train(detector, run, resume, processes)


def _train(detector: DetectionNetwork, run: Run, resume: bool, processes: Processes) -> Path:
    start = time.monotonic()
    trainer = Trainer(detector, run, processes)
    if resume:
        trainer.resume()
    examples = Examples(run.train, run.class_map)
    examples.preload()
    deadline = start + run.max_seconds
    if deadline < float("inf"):
        pace = measure(detector, run, examples, processes)
        deadline -= pace.end_s
        if not resume:
            left = run.max_seconds - (time.monotonic() - start)
            recipe = processes.gather(in_time(run.recipe, pace, left))[0]
            run = replace(run, recipe=recipe)
            trainer = Trainer(detector, run, processes)
    trainer.check_same()
    if processes.first:
        remove_partial_files(run.folder)
        if resume:
            read_metrics(run.folder / METRICS)  # damage is found out before any work
        write_run_config(trainer)
    if not resume:
        trainer.save()  # a folder that cannot be written is found out now
    _run(trainer, examples, deadline)
    return run.best if run.best.exists() else run.last


def _run(trainer: Trainer, examples: Examples, deadline: float) -> None:
    """All steps that are left, until the deadline of ``time.monotonic``."""
    recipe, run = trainer.recipe, trainer.run
    quiet = run.quiet or not trainer.processes.first
    with Progress(recipe.steps, trainer.step, quiet) as progress, Interrupts() as interrupts:
        reporter = Reporter(trainer, progress)
        try:
            reporter.begin(examples)
            if trainer.step and reporter.due():  # stopped between a checkpoint and its report
                reporter.report()
            if not trainer.finished:
                _learn(trainer, examples, reporter, interrupts, deadline)
            trainer.save()
            if reporter.log:
                write_run_page(run, reporter.log.rows)
        except DataError as error:
            trainer.images = None  # an image will be mended
            trainer.save()
            raise DataError(
                f"{error}; the run is saved after step {trainer.step}: mend the image and continue with `resume=True`"
            ) from error
        finally:
            reporter.call("on_end")


def _learn(trainer: Trainer, examples: Examples, reporter: Reporter, interrupts: Interrupts, deadline: float) -> None:
    recipe, processes, saved_at = trainer.recipe, trainer.processes, time.monotonic()
    message = reporter.progress.message
    prepared = batches(examples, trainer.detector, recipe, trainer.step, processes)
    with closing(prepared):
        for batch in processes.zip_ranks(prepared):
            reporter.step(trainer.learn(batch))
            asked, over = processes.any(interrupts.asked, time.monotonic() > deadline)
            last = trainer.finished or over
            late = time.monotonic() - saved_at > recipe.checkpoint_every_s
            if last or late or trainer.due() or asked:
                reporter.save()
                saved_at = time.monotonic()
            if asked:
                message(f"stopped after step {trainer.step}; the run can be resumed")
                raise KeyboardInterrupt
            if reporter.due(last):
                reporter.report(last)
            if trainer.convergence.reached(recipe):
                message(f"stopped after step {trainer.step}: the mean AP on training images has converged")
                return
            if last and trainer.step < recipe.steps:
                message(f"the time is up after step {trainer.step} of {recipe.steps}")
                return


def use_threads(threads: int | None) -> None:
    """Choose how many processor threads torch uses; None leaves its default."""
    if threads:
        torch.set_num_threads(threads)
