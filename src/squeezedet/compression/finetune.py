"""Train a network under masks or with shared weights, and keep what it has learned."""

from __future__ import annotations

import time
from collections.abc import Callable

from squeezedet.errors import UsageError
from squeezedet.files import Interrupts
from squeezedet.models.network import DetectionNetwork
from squeezedet.training.batches import Examples, batches
from squeezedet.training.log import Progress
from squeezedet.training.run_folder import Run
from squeezedet.training.trainer import Trainer

REPORT_EVERY = 100


def finetune(detector: DetectionNetwork, run: Run, before_step: Callable[[int], None], resume: bool = False) -> None:
    """All steps of the recipe; the detector then has the averaged weights of the last one, on the processor.

    Unlike a training from the start, it is not the best weights on validation that are kept:
    early ones would win because they are pruned less.

    Args:
        detector: with parametrized kernels (masks or centroids); changed in place.
        run: its folder gets ``last.safetensors``.
        before_step: called with the number of each step.
        resume: continue from ``last.safetensors`` if there is one.

    Raises:
        UsageError: the folder holds a run, and ``resume`` is not set.
        DivergedError, DataError: see ``training.loop.train``.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the state is saved.
    """
    if run.last.exists() and not resume:
        raise UsageError(f"{run.folder}: holds a compression already; continue it with `resume`, or remove it")
    # Workers make the targets, and a parametrized network cannot be pickled.
    bare = type(detector)(detector.config)
    bare.input_rule = detector.input_rule
    trainer = Trainer(detector, run)
    if run.last.exists():
        trainer.resume()
    else:
        trainer.save()  # a folder that cannot be written is found out now
    if not trainer.finished:
        _run(trainer, bare, before_step)
    detector.load_state_dict(trainer.ema or detector.state_dict())
    detector.cpu().eval()
    for parameter in detector.parameters():
        parameter.grad = None


def _run(trainer: Trainer, bare: DetectionNetwork, before_step: Callable[[int], None]) -> None:
    recipe, run = trainer.recipe, trainer.run
    examples = Examples(run.train, run.class_map)
    examples.preload()
    saved_at = time.monotonic()
    with Progress(recipe.steps, trainer.step, run.quiet) as progress, Interrupts() as interrupts:
        for batch in batches(examples, bare, recipe, trainer.step):
            before_step(trainer.step)
            trainer.learn(batch)
            progress.step(trainer.step)
            if trainer.step % REPORT_EVERY == 0:
                progress.report(trainer.step, *trainer.means.take())
            late = time.monotonic() - saved_at > recipe.checkpoint_every_s
            if late or interrupts.asked or trainer.finished:
                trainer.save()
                saved_at = time.monotonic()
            if interrupts.asked:
                progress.message(f"stopped after step {trainer.step}; continue with --resume")
                raise KeyboardInterrupt
