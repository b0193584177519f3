"""The training loop: a detector, labelled images and a recipe go in, a run folder comes out."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from squeezedet.detectors.network import DetectionNetwork
from squeezedet.errors import UsageError
from squeezedet.training.batches import Examples, batches
from squeezedet.training.interrupts import Interrupts
from squeezedet.training.log import Means, MetricsLog, Progress
from squeezedet.training.run import Run
from squeezedet.training.schedule import rate
from squeezedet.training.trainer import Trainer

REPORT_EVERY = 25


def train(detector: DetectionNetwork, run: Run, resume: bool = False) -> Path:
    """Train a detector.

    Args:
        detector: with its starting weights; trained in place.
        run: folder, images, recipe.
        resume: continue from ``last.safetensors``, exactly.

    Returns:
        Path of the best weights.

    Raises:
        DivergedError: a loss term is not finite.
        UsageError: the folder holds another run, or none to resume.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the state is saved.
    """
    recipe, last = run.recipe, run.folder / "last.safetensors"
    if last.exists() and not resume:
        raise UsageError(
            f"{run.folder}: holds a run already; continue it with --resume or use another --out"
        )
    if resume and not last.exists():
        raise UsageError(f"{run.folder}: holds no run to continue; leave out --resume")
    trainer = Trainer(detector, run)
    if resume:
        trainer.resume()
    else:
        trainer.save()  # a folder that cannot be written is found out now
    examples = Examples(run.train, run.class_map)
    examples.preload()
    log = MetricsLog(run.folder / "metrics.csv", trainer.step)
    means, saved_at = Means(recipe.batch), time.monotonic()
    with Progress(recipe.steps, trainer.step, run.quiet) as progress, Interrupts() as interrupts:
        if trainer.due():  # the run was stopped before it could be judged
            _judge(trainer, progress)
        for batch in batches(examples, detector, recipe, trainer.step):
            means.add(trainer.learn(batch))
            progress.step(trainer.step)
            done = trainer.step == recipe.steps
            late = time.monotonic() - saved_at > recipe.checkpoint_every_s
            if done or late or trainer.due() or interrupts.asked:
                trainer.save()
                saved_at = time.monotonic()
            if interrupts.asked:
                progress.say(f"stopped after step {trainer.step}; continue with --resume")
                raise KeyboardInterrupt
            if trainer.step % REPORT_EVERY == 0 or trainer.due() or done:
                log.add(_report(trainer, means, progress))
    return run.folder / "best.safetensors" if run.val else last


def _report(trainer: Trainer, means: Means, progress: Progress) -> dict[str, float | int]:
    """Show how the last steps went, validate if it is time; returns the row of the log."""
    losses, images_per_s = means.take()
    progress.report(trainer.step, losses, images_per_s)
    row: dict[str, float | int] = {"step": trainer.step, "images_per_s": images_per_s}
    row |= {"learning_rate": rate(trainer.recipe, trainer.step - 1), **losses}
    if trainer.due():
        row |= _judge(trainer, progress)
        means.restart()
    return row


def _judge(trainer: Trainer, progress: Progress) -> dict[str, float]:
    """Validate and say so; returns the columns of the log."""
    validation = trainer.validate()
    values = "  ".join(f"{name} {100 * ap:.1f}" for name, ap in validation.moderate.items())
    mean = f"mean {100 * validation.fitness:.1f}"
    progress.say(f"step {trainer.step}: AP40 moderate  {values}  {mean}")
    return {f"ap40_{name}": ap for name, ap in validation.moderate.items()}


def use_threads(threads: int | None) -> None:
    """Choose how many processor threads torch uses; None leaves its default."""
    if threads:
        torch.set_num_threads(threads)
