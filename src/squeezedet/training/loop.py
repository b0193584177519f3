"""The training loop: a detector, labelled images and a recipe go in, a run folder comes out."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from squeezedet.data.sample import ClassMap, Sample
from squeezedet.detectors.squeezedet import SqueezeDet
from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.runtime.preprocess import InputRule
from squeezedet.training import checkpoint
from squeezedet.training.batches import Batch, Examples, batches
from squeezedet.training.log import Means, MetricsLog, Progress
from squeezedet.training.recipe import Recipe, rate
from squeezedet.training.validate import Validation, validate
from squeezedet.version import __version__

REPORT_EVERY = 25


class DivergedError(SqueezeDetError):
    """A loss term is no number any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run works with.

    Attributes:
        folder: gets ``metrics.csv``, ``last.safetensors`` and ``best.safetensors``.
        train: labelled images to learn from.
        val: labelled images to judge by; may be empty.
        class_map: which label types are learnt.
        input: the size that detection uses.
        recipe: how.
        quiet: print nothing.
    """

    folder: Path
    train: Sequence[Sample]
    val: Sequence[Sample]
    class_map: ClassMap
    input: InputRule
    recipe: Recipe
    quiet: bool = False


class Trainer:
    """The state of a run: everything that a checkpoint holds."""

    def __init__(self, detector: SqueezeDet, run: Run) -> None:
        self.run, self.recipe = run, run.recipe
        self.detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _freeze(detector, self.recipe.frozen)
        self.optimizer = _optimizer(detector, self.recipe)
        self.ema = (
            {k: v.clone() for k, v in detector.state_dict().items()} if self.recipe.ema else {}
        )
        self.step = 0
        self.best = -1.0

    # ------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Write ``last.safetensors``."""
        parts = {
            "model": self.detector.state_dict(),
            "ema": self.ema,
            "optimizer": checkpoint.optimizer_tensors(self.detector, self.optimizer),
        }
        tensors = {f"{part}.{k}": v for part, values in parts.items() for k, v in values.items()}
        checkpoint.write(self.run.folder / "last.safetensors", tensors, self._metadata())

    def resume(self) -> None:
        """Take up the state of ``last.safetensors``; the recipe must be the same."""
        path = self.run.folder / "last.safetensors"
        saved = checkpoint.read(path)
        then, now = saved.metadata["recipe"], _plain(asdict(self.recipe))
        free = {"workers", "checkpoint_every_s", "validate_every"}
        changed = sorted(k for k in now.keys() - free if now[k] != then.get(k))
        if changed or saved.metadata["config"] != _plain(checkpoint.describe(self.detector.config)):
            what = ", ".join(changed) or "detector"
            raise UsageError(
                f"{path}: was written by another recipe ({what} differ); use a new --out"
            )
        self.detector.load_state_dict(saved.part("model"))
        self.ema = saved.part("ema")
        checkpoint.restore_optimizer(self.detector, self.optimizer, saved.part("optimizer"))
        self.step, self.best = int(saved.metadata["step"]), float(saved.metadata["best"])

    def _metadata(self) -> dict[str, Any]:
        return _plain(
            {
                "config": checkpoint.describe(self.detector.config),
                "recipe": asdict(self.recipe),
                "input": asdict(self.run.input),
                "step": self.step,
                "best": self.best,
                "versions": {"squeezedet": __version__, "torch": torch.__version__},
            }
        )

    # ------------------------------------------------------------------ steps

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step; returns the terms of the loss, and ``grad_norm``."""
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)  # dropout
        self.detector.train()
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16 and has_bf16()):
            raw = self.detector(images)
        terms = self.detector.loss(raw.float(), batch.targets)
        values = {name: float(term.detach()) for name, term in terms.items()}
        self._check(values, batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        norm = self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.recipe, self.step)
        self.optimizer.step()
        self.step += 1
        self._average()
        return values | {"grad_norm": norm}

    def _clip(self) -> float:
        parameters = [p for p in self.detector.parameters() if p.grad is not None]
        if self.recipe.optimizer == "sgd":  # each tensor on its own, as the paper's code (trap 10)
            norms = [torch.nn.utils.clip_grad_norm_([p], self.recipe.clip_norm) for p in parameters]
            return float(torch.stack(norms).norm())
        return float(torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm))

    def _check(self, terms: Mapping[str, float], batch: Batch) -> None:
        for name, value in terms.items():
            if not math.isfinite(value):
                shown = ", ".join(f"{k} {v:g}" for k, v in terms.items())
                raise DivergedError(
                    f"step {self.step}: the loss term {name!r} is {value} ({shown}) on images "
                    f"{', '.join(batch.ids)}; lower --learning-rate or look at their labels"
                )

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.detector.state_dict().items() if self.ema else ():
            self.ema[name].lerp_(value, 1 - decay)

    # ------------------------------------------------------------- validation

    def validate(self) -> Validation:
        """Judge the averaged weights; keep them as ``best.safetensors`` if they are."""
        judged = SqueezeDet(self.detector.config)
        judged.load_state_dict(self.ema or self.detector.state_dict())
        validation = validate(judged, self.run.val, self.run.input)
        if validation.fitness > self.best:
            self.best = validation.fitness
            tensors = {f"model.{k}": v for k, v in judged.state_dict().items()}
            metadata = self._metadata() | {"validation": validation.result.to_dict()}
            checkpoint.write(self.run.folder / "best.safetensors", tensors, metadata)
        return validation


def train(detector: SqueezeDet, run: Run, resume: bool = False) -> Path:
    """Train a detector.

    Args:
        detector: with its starting weights; trained in place.
        run: folder, images, recipe.
        resume: continue from ``last.safetensors``, exactly.

    Returns:
        Path of the best weights.

    Raises:
        DivergedError: a loss term is not finite.
        UsageError: the folder holds another run.
    """
    recipe, last = run.recipe, run.folder / "last.safetensors"
    if last.exists() and not resume:
        raise UsageError(
            f"{run.folder}: holds a run already; continue it with --resume or use another --out"
        )
    trainer = Trainer(detector, run)
    if resume:
        trainer.resume()
    examples = Examples(run.train, run.class_map)
    examples.preload()
    log = MetricsLog(run.folder / "metrics.csv", trainer.step)
    means, saved_at = Means(recipe.batch), time.monotonic()
    with Progress(recipe.steps, trainer.step, run.quiet) as progress:
        try:
            for batch in batches(examples, detector, recipe, run.input, trainer.step):
                means.add(trainer.learn(batch))
                progress.step(trainer.step)
                done = trainer.step == recipe.steps
                judge = bool(run.val) and (trainer.step % recipe.validate_every == 0 or done)
                if trainer.step % REPORT_EVERY == 0 or judge or done:
                    log.add(_report(trainer, means, judge, progress))
                if done or time.monotonic() - saved_at > recipe.checkpoint_every_s:
                    trainer.save()
                    saved_at = time.monotonic()
        except KeyboardInterrupt:
            trainer.save()
            raise
    return run.folder / "best.safetensors" if run.val else last


def _report(
    trainer: Trainer, means: Means, judge: bool, progress: Progress
) -> dict[str, float | int]:
    """Show how the last steps went, validate if it is time; returns the row of the log."""
    losses, images_per_s = means.take()
    progress.report(trainer.step, losses, images_per_s)
    row: dict[str, float | int] = {"step": trainer.step, "images_per_s": images_per_s}
    row |= {"learning_rate": rate(trainer.recipe, trainer.step - 1), **losses}
    if judge:
        validation = trainer.validate()
        row |= {f"ap40_{name}": ap for name, ap in validation.moderate.items()}
        values = "  ".join(f"{name} {100 * ap:.1f}" for name, ap in validation.moderate.items())
        mean = f"mean {100 * validation.fitness:.1f}"
        progress.say(f"step {trainer.step}: AP40 moderate  {values}  {mean}")
        means.restart()
    return row


def prepare(threads: int | None) -> None:
    """Choose the processor threads, and let a polite kill (SIGTERM) save the run as Ctrl-C does."""
    if threads:
        torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, bfloat16 is slow."""
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(check())


def say(run: Run, text: str) -> None:
    """A line for whoever watches the run."""
    if not run.quiet:
        print(text, file=sys.stderr, flush=True)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples become lists, as they do in JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _freeze(detector: SqueezeDet, names: Sequence[str]) -> None:
    for name in names:
        layers = dict(detector.named_modules())
        if name not in layers:
            known = ", ".join(child for child, _ in detector.named_children())
            raise UsageError(f"no layer {name!r} to freeze; the detector has {known}")
        layers[name].requires_grad_(False)


def _optimizer(detector: SqueezeDet, recipe: Recipe) -> torch.optim.Optimizer:
    """Weight decay on trainable kernels only, never on biases."""
    trained = [(n, p) for n, p in detector.named_parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for n, p in trained if n.endswith("weight")],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [p for n, p in trained if not n.endswith("weight")], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)
