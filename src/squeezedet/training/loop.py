"""The training loop: a detector, labelled images and a recipe go in, a run folder comes out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from squeezedet.detectors.network import DetectionNetwork
from squeezedet.errors import DataError, UsageError
from squeezedet.interrupts import Interrupts
from squeezedet.training import pace
from squeezedet.training.batches import Batch, batches
from squeezedet.training.distributed import ALONE, Processes
from squeezedet.training.examples import Examples
from squeezedet.training.follower import Follower
from squeezedet.training.log import Progress
from squeezedet.training.record import write_record
from squeezedet.training.reporter import Reporter
from squeezedet.training.run import Run, sweep
from squeezedet.training.trainer import Trainer


def train(
    detector: DetectionNetwork, run: Run, resume: bool = False, processes: Processes = ALONE
) -> Path:
    """Train a detector.

    Args:
        detector: with its starting weights; trained in place.
        run: folder, images, recipe.
        resume: continue from ``last.safetensors``, exactly.
        processes: which train together; the first writes the folder, all read it to resume.

    Returns:
        Path of the best weights.

    Raises:
        DivergedError: a loss term is not finite.
        UsageError: the folder holds another run, or none to resume; or the processes do not
            work on the same.
        DataError: an image cannot be decoded; what was learnt so far is saved.
        SqueezeDetError: the folder cannot be written; the last checkpoint is whole.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the state is saved.
    """
    if run.last.exists() and not resume:
        raise UsageError(
            f"{run.folder}: holds a run already; continue it with --resume or use another --out"
        )
    if resume and not run.last.exists():
        raise UsageError(f"{run.folder}: holds no run to continue; leave out --resume")
    start = time.monotonic()
    trainer = Trainer(detector, run, processes)
    if resume:
        trainer.resume()
    examples = Examples(run.train, run.class_map)
    examples.preload()
    deadline = start + run.max_seconds
    if deadline < float("inf"):
        found = pace.measure(detector, run, examples, processes)
        deadline -= found.end_s
        if not resume:
            left = run.max_seconds - (time.monotonic() - start)
            recipe = processes.gather(pace.in_time(run.recipe, found, left))[0]
            run = replace(run, recipe=recipe)
            trainer = Trainer(detector, run, processes)
    trainer.check_same()
    if not resume:
        trainer.save()  # a folder that cannot be written is found out now
    if processes.first:
        sweep(run.folder)
        write_record(trainer)
    _run(trainer, examples, deadline)
    return run.best if run.best.exists() else run.last


def _run(trainer: Trainer, examples: Examples, deadline: float) -> None:
    """All steps that are left, until the deadline of ``time.monotonic``."""
    recipe, run = trainer.recipe, trainer.run
    first = trainer.processes.first
    quiet = run.quiet or not first
    with Progress(recipe.steps, trainer.step, quiet) as progress, Interrupts() as interrupts:
        reporter = Reporter(trainer, progress) if first else Follower(trainer, progress)
        try:
            if trainer.step == 0:
                reporter.begin(examples)
            elif reporter.due():  # the run was stopped between a checkpoint and its report
                reporter.report()
            _steps(trainer, examples, reporter, interrupts, deadline)
        except DataError as error:
            trainer.save()
            raise DataError(
                f"{error}; the run is saved after step {trainer.step}: mend the image and "
                "continue with --resume"
            ) from error
        trainer.save()
        reporter.end()


def _steps(
    trainer: Trainer,
    examples: Examples,
    reporter: Follower,
    interrupts: Interrupts,
    deadline: float,
) -> None:
    if trainer.finished:
        return
    prepared = batches(examples, trainer.detector, trainer.recipe, trainer.step, trainer.processes)
    with closing(prepared):
        _learn(trainer, prepared, reporter, interrupts, deadline)


def _learn(
    trainer: Trainer,
    prepared: Iterator[Batch],
    reporter: Follower,
    interrupts: Interrupts,
    deadline: float,
) -> None:
    recipe, processes, saved_at = trainer.recipe, trainer.processes, time.monotonic()
    for batch in processes.together(prepared):
        trainer.learn(batch)
        reporter.progress.step(trainer.step)
        asked, over = processes.any(interrupts.asked, time.monotonic() > deadline)
        last = trainer.finished or over
        late = time.monotonic() - saved_at > recipe.checkpoint_every_s
        if last or late or trainer.due() or asked:
            trainer.save()
            saved_at = time.monotonic()
        if asked:
            reporter.progress.say(f"stopped after step {trainer.step}; continue with --resume")
            raise KeyboardInterrupt
        if reporter.due(last):
            reporter.report(last)
        if trainer.convergence.reached(recipe):
            reporter.progress.say(
                f"stopped after step {trainer.step}: the mean AP on training images has converged"
            )
            return
        if last and trainer.step < recipe.steps:
            reporter.progress.say(f"the time is up after step {trainer.step} of {recipe.steps}")
            return


def use_threads(threads: int | None) -> None:
    """Choose how many processor threads torch uses; None leaves its default."""
    if threads:
        torch.set_num_threads(threads)
