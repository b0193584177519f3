"""The training loop: a detector, labelled images and a recipe go in, a run folder comes out."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from squeezedet.data.sample import ClassMap, Sample
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.errors import ModelError, SqueezeDetError, UsageError
from squeezedet.training import checkpoint
from squeezedet.training.batches import Batch, Examples, batches
from squeezedet.training.interrupts import Interrupts
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
        recipe: how.
        quiet: print nothing.
    """

    folder: Path
    train: Sequence[Sample]
    val: Sequence[Sample]
    class_map: ClassMap
    recipe: Recipe
    quiet: bool = False


class Trainer:
    """The state of a run: everything that a checkpoint holds."""

    def __init__(self, detector: DetectionNetwork, run: Run) -> None:
        self.run, self.recipe = run, run.recipe
        self.detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _freeze(detector, self.recipe.frozen)
        self.optimizer = _optimizer(detector, self.recipe)
        self.ema = (
            {k: v.clone() for k, v in detector.state_dict().items()} if self.recipe.ema else {}
        )
        self.data = fingerprint(run.train, run.class_map)
        self.step = 0
        self.judged = 0
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
        """Take up the state of ``last.safetensors``; recipe, detector and data must agree."""
        path = self.run.folder / "last.safetensors"
        saved = checkpoint.read(path)
        then, now = saved.metadata, self._metadata()
        free = {"workers", "checkpoint_every_s", "validate_every"}
        changed = [
            key
            for key in now["recipe"].keys() - free
            if now["recipe"][key] != then.get("recipe", {}).get(key)
        ] + [key for key in ("config", "class_map", "data") if now[key] != then.get(key)]
        if changed:
            raise UsageError(
                f"{path}: was written with another {', '.join(sorted(changed))}; leave out the "
                "options that differ, or start a new run with another --out"
            )
        try:
            self.detector.load_state_dict(saved.part("model"))
            self.ema = {name: saved.part("ema")[name] for name in self.ema}
            checkpoint.restore_optimizer(self.detector, self.optimizer, saved.part("optimizer"))
            self.step, self.judged = int(then["step"]), int(then["judged"])
            self.best = float(then["best"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"{path}: is no complete state of a run: {error}") from error

    def _metadata(self) -> dict[str, Any]:
        return _plain(
            {
                "config": checkpoint.describe(self.detector),
                "recipe": asdict(self.recipe),
                "input": asdict(self.detector.input_rule),
                "class_map": asdict(self.run.class_map),
                "data": self.data,
                "step": self.step,
                "judged": self.judged,
                "best": self.best,
                "threads": torch.get_num_threads(),
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
        terms = self.detector.loss(raw, batch.targets)
        values = {name: float(term.detach()) for name, term in terms.items()}
        self._check(values, batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        norm = self._clip()
        self._check({"gradient": norm}, batch)
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
                    f"step {self.step}: {name!r} of the loss is {value} ({shown}) on images "
                    f"{', '.join(batch.ids)}; lower --learning-rate or look at their labels"
                )

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.detector.state_dict().items() if self.ema else ():
            self.ema[name].lerp_(value, 1 - decay)

    # ------------------------------------------------------------- validation

    def due(self) -> bool:
        """Whether this step ends with a validation that has not been done."""
        last = self.step == self.recipe.steps
        due = self.step > 0 and (self.step % self.recipe.validate_every == 0 or last)
        return bool(self.run.val) and due and self.judged < self.step

    def validate(self) -> Validation:
        """Judge the averaged weights; keep them as ``best.safetensors`` if they are."""
        judged = copy.deepcopy(self.detector)
        judged.load_state_dict(self.ema or self.detector.state_dict())
        validation = validate(judged, self.run.val)
        self.judged = self.step
        if validation.fitness > self.best:
            self.best = validation.fitness
            tensors = {f"model.{k}": v for k, v in judged.state_dict().items()}
            metadata = self._metadata() | {"validation": validation.result.to_dict()}
            checkpoint.write(self.run.folder / "best.safetensors", tensors, metadata)
        return validation


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


def fingerprint(samples: Sequence[Sample], class_map: ClassMap) -> str:
    """A checksum of what is learnt: ids, labels, and what the labels mean."""
    digest = hashlib.sha256(repr(class_map).encode())
    for sample in samples:
        digest.update(f"{sample.id} {sample.objects.types}".encode())
        digest.update(sample.objects.xyxy.tobytes())
    return digest.hexdigest()


def use_threads(threads: int | None) -> None:
    """Choose how many processor threads torch uses; None leaves its default."""
    if threads:
        torch.set_num_threads(threads)


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, bfloat16 is slow."""
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(check())


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples become lists, as they do in JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _freeze(detector: DetectionNetwork, names: Sequence[str]) -> None:
    for name in names:
        layers = dict(detector.named_modules())
        if name not in layers:
            known = ", ".join(child for child, _ in detector.named_children())
            raise UsageError(f"no layer {name!r} to freeze; the detector has {known}")
        layers[name].requires_grad_(False)


def _optimizer(detector: DetectionNetwork, recipe: Recipe) -> torch.optim.Optimizer:
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
