"""Trainer: the state of a run, its steps, and how it is judged."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from squeezedet.detectors.network import DetectionNetwork
from squeezedet.errors import ModelError, SqueezeDetError, UsageError
from squeezedet.training import checkpoint
from squeezedet.training.batches import Batch
from squeezedet.training.optimizer import clip_gradients, freeze, new_optimizer
from squeezedet.training.run import Run, fingerprint
from squeezedet.training.schedule import rate
from squeezedet.training.validate import Validation, validate
from squeezedet.version import __version__


class DivergedError(SqueezeDetError):
    """A loss term is no number any more."""


class Trainer:
    """The state of a run: everything that a checkpoint holds."""

    def __init__(self, detector: DetectionNetwork, run: Run) -> None:
        self.run, self.recipe = run, run.recipe
        self.detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.frozen = freeze(detector, self.recipe.frozen)
        self.optimizer = new_optimizer(detector, self.recipe)
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
        norm = clip_gradients(self.detector, self.recipe)
        self._check({"gradient": norm}, batch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.recipe, self.step)
        self.optimizer.step()
        self.step += 1
        self._average()
        return values | {"grad_norm": norm}

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


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, bfloat16 is slow."""
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(check())


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples become lists, as they do in JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
