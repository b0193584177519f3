"""Trainer: the state of a run, its steps, and how it is judged."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from squeezedet.data.sample import Sample
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.errors import ModelError, SqueezeDetError, UsageError
from squeezedet.training import checkpoint
from squeezedet.training.batches import Batch
from squeezedet.training.distributed import ALONE, Processes
from squeezedet.training.early_stop import Convergence, even_sample
from squeezedet.training.log import Means
from squeezedet.training.optimizer import clip_gradients, freeze, new_optimizer
from squeezedet.training.recipe import from_saved
from squeezedet.training.run import Run, fingerprint
from squeezedet.training.schedule import rate
from squeezedet.training.teacher import open_teacher
from squeezedet.training.validate import Validation, validate
from squeezedet.version import __version__


class DivergedError(SqueezeDetError):
    """A loss term is no number any more."""


# What may change between the parts of a run: it decides nothing about the weights.
FREE = frozenset({"workers", "checkpoint_every_s", "validate_every"})
# What may differ between the processes of a run.
ELSEWHERE = frozenset({"workers", "checkpoint_every_s"})
RANK_BITS = 52  # above the seeds of all steps: each process drops other inputs


@dataclass(frozen=True, slots=True)
class Judgement:
    """How good the averaged weights are: on the validation images, and on those learnt from."""

    val: Validation | None
    train: Validation | None


class Trainer:
    """The state of a run: everything that a checkpoint holds.

    Attributes:
        step: steps done.
        reported: the step of the last row of ``metrics.csv``.
        judged: the step of the last validation; ``best`` is the best mean AP so far.
        means: the losses since that row.
        teacher: whose answers are learnt from, too; None for none.
        convergence: of the mean AP on training images, for the early stop.
    """

    def __init__(self, detector: DetectionNetwork, run: Run, processes: Processes = ALONE) -> None:
        self.run, self.recipe, self.processes = run, run.recipe, processes
        processes.enlist(detector)
        teacher = self.recipe.teacher
        self.teacher = open_teacher(teacher, detector) if teacher else None
        self.detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.frozen = freeze(detector, self.recipe.frozen)
        self.optimizer = new_optimizer(detector, self.recipe)
        self.ema = (
            {k: v.clone() for k, v in detector.state_dict().items()} if self.recipe.ema else {}
        )
        self.data = fingerprint(run.train, run.class_map)
        self.step = self.reported = self.judged = 0
        self.best = -1.0
        self.means = Means(self.recipe.batch * processes.count)
        self.convergence = Convergence()

    # ------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Write ``last.safetensors``; of several processes the first does."""
        if not self.processes.first:
            return
        parts = {
            "model": self.detector.state_dict(),
            "ema": self.ema,
            "optimizer": checkpoint.optimizer_tensors(self.detector, self.optimizer),
        }
        tensors = {f"{part}.{k}": v for part, values in parts.items() for k, v in values.items()}
        checkpoint.write(self.run.last, tensors, self._metadata())

    def resume(self) -> None:
        """Take up the state of ``last.safetensors``; recipe, detector and data must agree."""
        path = self.run.last
        saved = checkpoint.read(path)
        then = saved.metadata
        self._compare(then, path)
        try:
            self.detector.load_state_dict(saved.part("model"))
            self.ema = {name: saved.part("ema")[name] for name in self.ema}
            checkpoint.restore_optimizer(self.detector, self.optimizer, saved.part("optimizer"))
            self.step, self.judged = int(then["step"]), int(then["judged"])
            self.best = float(then["best"])
            self.reported = int(then.get("reported", self.step))
            self.means.steps = list(then.get("pending", []))
            self.convergence = Convergence(**then.get("convergence", {}))
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: is no complete state of a run: {error}") from error

    def _compare(self, then: Mapping[str, Any], path: Path) -> None:
        """Network, recipe and data must be those of the checkpoint."""
        now = self._metadata()
        try:
            recipe = _plain(asdict(from_saved(checkpoint.tuples(then["recipe"]))))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: does not say how the run was made: {error}") from error
        changed = [key for key in now["recipe"].keys() - FREE if now["recipe"][key] != recipe[key]]
        then = {"processes": 1, "teacher": None, **then}
        keys = ("config", "class_map", "data", "processes", "teacher")
        changed += [key for key in keys if now[key] != then.get(key)]
        if changed:
            raise UsageError(
                f"{path}: was written with another {', '.join(sorted(changed))}; leave out the "
                "options that differ, or start a new run with another --out"
            )

    def check_same(self) -> None:
        """Find out whether all processes are at the same point of the same run.

        Raises:
            UsageError: they are not.
        """
        now = self._metadata()
        recipe = {k: v for k, v in now["recipe"].items() if k not in ELSEWHERE}
        keys = ("config", "input", "class_map", "data", "teacher", "step")
        val = fingerprint(self.run.val, self.run.class_map)
        self.processes.check_same(
            recipe | {key: now[key] for key in keys} | {"validation data": val}
        )

    def _metadata(self) -> dict[str, Any]:
        return _plain(
            {
                "config": checkpoint.describe(self.detector),
                "recipe": asdict(self.recipe),
                "input": asdict(self.detector.input_rule),
                "class_map": asdict(self.run.class_map),
                "data": self.data,
                "teacher": self.teacher and self.teacher.checksum,
                "processes": self.processes.count,
                "step": self.step,
                "judged": self.judged,
                "best": self.best,
                "reported": self.reported,
                "pending": self.means.steps,
                "convergence": asdict(self.convergence),
                "threads": torch.get_num_threads(),
                "versions": {"squeezedet": __version__, "torch": torch.__version__},
            }
        )

    # ------------------------------------------------------------------ steps

    @cached_property
    def _network(self) -> nn.Module:
        return self.processes.network(self.detector)

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step; returns the terms of the loss, and ``grad_norm``, over all processes.

        Raises:
            DivergedError: one of them is no number; nothing has been learnt from the batch.
        """
        processes = self.processes
        torch.manual_seed(  # dropout
            self.recipe.seed * 1_000_003 + self.step + (processes.rank << RANK_BITS)
        )
        self.detector.train()
        for layer in self.frozen:
            layer.eval()
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16 and has_bf16()):
            raw = self._network(images)
            taught = self.teacher.answer(images) if self.teacher else None
        terms = self.detector.loss(raw, batch.targets)
        if self.teacher and taught is not None:
            terms |= self.teacher.terms(self.detector, raw, taught)
        shares = torch.stack(list(terms.values()))
        values = dict(zip(terms, processes.sum(shares.detach()).tolist(), strict=True))
        self._check(values, batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(shares.sum() * processes.count)
        norm = clip_gradients(self.detector, self.recipe)
        self._check({"gradient": norm}, batch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.recipe, self.step)
        self.optimizer.step()
        processes.average_statistics(self.detector)
        self.step += 1
        self._average()
        values["grad_norm"] = norm
        self.means.add(values)
        return values

    def _check(self, terms: Mapping[str, float], batch: Batch) -> None:
        for name, value in terms.items():
            if not math.isfinite(value):
                shown = ", ".join(f"{k} {v:g}" for k, v in terms.items())
                ids = [name for some in self.processes.gather(batch.ids) for name in some]
                raise DivergedError(
                    f"step {self.step}: {name!r} of the loss is {value} ({shown}) on images "
                    f"{', '.join(ids)}; lower --learning-rate or look at their labels"
                )

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.detector.state_dict().items() if self.ema else ():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - decay)
            else:  # batch norm counts its batches
                self.ema[name].copy_(value)

    # ------------------------------------------------------------- validation

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to learn: all steps are done, or it has converged."""
        return self.step >= self.recipe.steps or self.convergence.reached(self.recipe)

    def due(self, last: bool = False) -> bool:
        """Whether a validation is due that has not been done; ``last``: the run ends here."""
        end = last or self.step == self.recipe.steps
        wanted = bool(self.run.val) or self.recipe.early_stop > 0
        now = self.step > 0 and (self.step % self.recipe.validate_every == 0 or end)
        return wanted and now and self.judged < self.step

    def judge(self) -> Judgement:
        """Judge the averaged weights; keep them as ``best.safetensors`` if they are.

        Raises:
            DataError: an image cannot be decoded.
        """
        judged = copy.deepcopy(self.detector)
        judged.load_state_dict(self.ema or self.detector.state_dict())
        val = self._validate(judged, self.run.val) if self.run.val else None
        train = None
        if self.recipe.early_stop:
            train = self._validate(judged, even_sample(self.run.train, self.recipe.early_images))
            self.convergence = self.convergence.after(train.fitness, self.recipe)
        self.judged = self.step
        if val and val.fitness > self.best:
            self.best = val.fitness
            if self.processes.first:
                tensors = {f"model.{k}": v for k, v in judged.state_dict().items()}
                metadata = self._metadata() | {"validation": val.result.to_dict()}
                checkpoint.write(self.run.best, tensors, metadata)
        return Judgement(val, train)

    def _validate(self, detector: DetectionNetwork, samples: Sequence[Sample]) -> Validation:
        run, recipe = self.run, self.recipe
        return validate(detector, samples, run.class_map, recipe.protocol, self.processes)


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, bfloat16 is slow."""
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(check())


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples become lists, as they do in JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
