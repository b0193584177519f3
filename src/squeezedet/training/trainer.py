"""Trainer: the state of a run, its steps, and its validations."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.errors import ModelError, SqueezeDetError, UsageError
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezedet import ConvDet, quality_focal
from squeezedet.training import checkpoint
from squeezedet.training.batches import Batch
from squeezedet.training.distributed import SINGLE_PROCESS, Processes
from squeezedet.training.recipe import Convergence, Recipe, even_sample, from_saved, rate
from squeezedet.training.run_folder import Run, fingerprint, image_fingerprint
from squeezedet.training.validate import Validation, figures, validate
from squeezedet.version import __version__

# ------------------------------------------------------------ where it computes, and in which precision

NAMES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; a UsageError where it is unknown or not there.

    ``auto`` is CUDA where there is a GPU, else Apple's, else the processor. Under torchrun ``auto`` and ``cuda`` are
    the GPU of the process's own number on its machine.
    """
    if not NAMES.fullmatch(name):
        raise UsageError(f"device: {name!r} is none of auto, cpu, cuda, cuda:N, mps")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if gpus else "mps" if apple else "cpu"
    if name.startswith("cuda"):
        rank = os.environ.get("LOCAL_RANK", "")
        own = int(rank) if rank.isdecimal() else 0
        number = int(name[5:]) if ":" in name else own
        if not gpus:
            raise UsageError(f"device: {name} is not there: torch finds no GPU of CUDA; use cpu")
        if number >= gpus:
            raise UsageError(
                f"device: cuda:{number} is not there: this machine has {gpus} of them, from 0; "
                "start at most as many processes"
            )
        return torch.device("cuda", number)
    if name == "mps" and not apple:
        raise UsageError("device: mps is not there: torch finds no GPU of Apple's; use cpu")
    return torch.device(name)


def half_precision(device: torch.device, wanted: bool = True) -> torch.dtype | None:
    """The type of convolutions in mixed precision; None for float32.

    bfloat16 where the device multiplies it itself (elsewhere it is slow), float16 on older GPUs of CUDA. Apple's GPUs
    compute in float32.
    """
    if wanted and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if wanted and device.type == "cpu" and check() else None


# ------------------------------------------------------------ layers that do not learn; the optimizer

MOMENTUM = 0.9
NAMES_SHOWN = 40


def freeze(network: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Let layers keep their weights; returns them, to be kept in evaluation mode: batch norm has statistics, too.

    ``patterns`` are names of layers with the wildcards of a shell: ``backbone.fire*``. A UsageError where one fits no
    layer, or nothing is left to learn.
    """
    layers = {name: layer for name, layer in network.named_modules() if name}
    frozen = []
    for pattern in patterns:
        found = [layer for name, layer in layers.items() if fnmatchcase(name, pattern)]
        if not found:
            names = [name for name, layer in layers.items() if next(layer.parameters(), None) is not None]
            names.sort(key=lambda name: name.count("."))  # the outer ones first
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            raise UsageError(f"no layer {pattern!r} to freeze; there are {', '.join(names[:NAMES_SHOWN])}{more}")
        frozen += found
    for layer in frozen:
        layer.requires_grad_(False)
    if not any(p.requires_grad for p in network.parameters()):
        raise UsageError(f"freezing {', '.join(patterns)} leaves nothing to learn")
    return frozen


def new_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of what is not frozen; weight decay on kernels only: no biases, no scales of a normalization."""
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    kernels = [p for name, p in trained if _is_kernel(name, p)]
    others = [p for name, p in trained if not _is_kernel(name, p)]
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _is_kernel(name: str, parameter: Tensor) -> bool:
    return name.endswith("weight") and parameter.ndim > 1


def clip_gradients(network: nn.Module, recipe: Recipe) -> Tensor:
    """Shorten gradients to ``clip_norm``, all together or each tensor; () norm of all before."""
    parameters = [p for p in network.parameters() if p.grad is not None]
    if recipe.clip == "tensor":  # each on its own, as the paper's code (trap 10)
        norms = [torch.nn.utils.clip_grad_norm_([p], recipe.clip_norm) for p in parameters]
        together: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return together
    norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
    return norm


# ------------------------------------------------------------ a teacher (distillation, arXiv 1503.02531)

# A detector says mostly "nothing here", so what the teacher says of an anchor counts by how sure it is of an object
# there (arXiv 1805.06361). The weights are those of the terms that the labels give.
LOSS_CONFIDENCE, LOSS_CLASS, LOSS_BOX = 4.0, 1.0, 5.0


class Teacher:
    """A network that teaches ``student``, read from what ``load_detector`` takes; a UsageError where they do not fit.

    A run that resumes needs one of the same ``checksum``.
    """

    def __init__(self, source: str, student: DetectionNetwork, device: torch.device | str = "cpu") -> None:
        network = checkpoint.load_detector(source).requires_grad_(False)
        check_compatible(student, network, source)
        assert isinstance(student, ConvDet)  # noqa: S101 - just checked
        digest = hashlib.sha256()
        for tensor in network.state_dict().values():
            digest.update(tensor.contiguous().numpy().tobytes())
        self.checksum = digest.hexdigest()
        self._student = student
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) RGB pixels, after augmentation, to the teacher's map."""
        answer: Tensor = self._network(images)
        return answer

    def terms(self, raw: Tensor, answer: Tensor) -> dict[str, Tensor]:
        return distillation_terms(self._student, raw, answer)


def check_compatible(student: object, teacher: object, where: str) -> None:
    """A UsageError unless a network can learn from another's map."""
    if not isinstance(student, ConvDet) or not isinstance(teacher, ConvDet):
        raise UsageError(f"{where}: a teacher and its student must both be ConvDet networks")
    for field in ("classes", "anchors", "geometry"):
        if getattr(student.config, field) != getattr(teacher.config, field):
            raise UsageError(f"{where}: the teacher has other {field} than the network")


def distillation_terms(student: ConvDet, raw: Tensor, answer: Tensor) -> dict[str, Tensor]:
    """The terms that pull a student's map to its teacher's.

    Confidence: quality focal loss against the teacher's confidence. Class: the Kullback-Leibler divergence from the
    teacher's classes. Box: squared differences of the deltas. The last two are weighted by the teacher's confidence;
    all are divided by its sum, the number of objects that the teacher sees. Both maps are (N, K * (C + 5), H, W).
    """
    logits, confidence, deltas = (part.float() for part in student.split(raw))
    t_logits, t_confidence, t_deltas = (part.float() for part in student.split(answer))
    sure = t_confidence.sigmoid()
    objects = student.sum_over_processes(sure.sum()).clamp(min=1)
    divergence = F.kl_div(logits.log_softmax(-1), t_logits.log_softmax(-1), reduction="none", log_target=True)
    squares = (deltas - t_deltas).square()
    return {
        "distill_conf": LOSS_CONFIDENCE * quality_focal(confidence, sure).sum() / objects,
        "distill_class": LOSS_CLASS * (sure * divergence.sum(-1)).sum() / objects,
        "distill_box": LOSS_BOX * (sure * squares.sum(-1)).sum() / objects,
    }


# ------------------------------------------------------------ the state of a run


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


class DivergedError(SqueezeDetError):
    """A loss term is no number any more."""


# What may change between the parts of a run: it decides nothing about the weights.
MAY_CHANGE_ON_RESUME = frozenset({"workers", "checkpoint_every_s", "validate_every", "device"})
# What may differ between the processes of a run.
MAY_DIFFER_BY_RANK = frozenset({"workers", "checkpoint_every_s", "device"})
RANK_BITS = 52  # above the seeds of all steps: each process drops other inputs


class Trainer:
    """The state of a run: everything that a checkpoint holds.

    Attributes:
        step: steps done.
        reported: the step of the last row of ``metrics.csv``.
        judged: the step of the last validation; ``best`` is the best mean AP so far.
        means: the losses since that row.
        teacher: whose answers are learned from, too; None for none.
        convergence: of the mean AP on training images, for the early stop.
    """

    def __init__(
        self,
        detector: DetectionNetwork,
        run: Run,
        processes: Processes = SINGLE_PROCESS,
        device: torch.device | None = None,
    ) -> None:
        self.run, self.recipe, self.processes = run, run.recipe, processes
        self.device = device or choose_device(self.recipe.device)
        self.dtype = half_precision(self.device, self.recipe.amp)
        # It keeps gradients of float16 from vanishing; without float16 it does nothing.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        if self.device.type == "cuda":  # cuDNN times its algorithms for each input shape, if there are few of them
            torch.backends.cudnn.benchmark = len(self.recipe.shapes) <= 16
        processes.broadcast(detector.to(self.device))
        teacher = self.recipe.teacher
        self.teacher = Teacher(teacher, detector, self.device) if teacher else None
        self.detector = detector.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.frozen = freeze(detector, self.recipe.frozen)
        self.optimizer = new_optimizer(detector, self.recipe)
        self.ema = {k: v.clone() for k, v in detector.state_dict().items()} if self.recipe.ema else {}
        self.data = fingerprint(run.train, run.class_map)
        self.images: str | None = image_fingerprint(run.train)
        self.step = self.reported = self.judged = 0
        self.best = -1.0
        self.means = RunningMeans(self.recipe.batch * processes.count)
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
            saved_ema = saved.part("ema")
            self.ema = {name: saved_ema[name].to(self.device) for name in self.ema}
            if self.scaler.is_enabled() and then.get("scaler"):
                self.scaler.load_state_dict(then["scaler"])
            checkpoint.restore_optimizer(self.detector, self.optimizer, saved.part("optimizer"))
            self.step, self.judged = int(then["step"]), int(then["judged"])
            self.best = float(then["best"])
            self.reported = int(then.get("reported", self.step))
            self.means.steps = list(then.get("pending", []))
            self.convergence = Convergence(**then.get("convergence", {}))
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: is no complete state of a run: {error}") from error

    def _compare(self, then: Mapping[str, Any], path: Path) -> None:
        now = self._metadata()
        try:
            recipe = _plain(asdict(from_saved(checkpoint.tuples(then["recipe"]))))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: does not say how the run was made: {error}") from error
        changed = [key for key in now["recipe"].keys() - MAY_CHANGE_ON_RESUME if now["recipe"][key] != recipe[key]]
        then = {"processes": 1, "teacher": None, **then}
        keys = ("config", "class_map", "data", "processes", "teacher")
        changed += [key for key in keys if now[key] != then.get(key)]
        if then.get("images") not in (None, self.images):  # older checkpoints do not say
            changed.append("set of images")
        if changed:
            raise UsageError(
                f"{path}: was written with another {', '.join(sorted(changed))}; leave out what "
                "differs, or start a new run with another `out`"
            )

    def check_same(self) -> None:
        """A UsageError unless all processes are at the same point of the same run."""
        now = self._metadata()
        recipe = {k: v for k, v in now["recipe"].items() if k not in MAY_DIFFER_BY_RANK}
        keys = ("config", "input", "class_map", "data", "images", "teacher", "step")
        val = fingerprint(self.run.val, self.run.class_map)
        self.processes.check_same(recipe | {key: now[key] for key in keys} | {"validation data": val})

    def _metadata(self) -> dict[str, Any]:
        return _plain(
            {
                "config": checkpoint.describe(self.detector),
                "recipe": asdict(self.recipe),
                "input": asdict(self.detector.input_rule),
                "class_map": asdict(self.run.class_map),
                "data": self.data,
                "images": self.images,
                "teacher": self.teacher and self.teacher.checksum,
                "processes": self.processes.count,
                "step": self.step,
                "judged": self.judged,
                "best": self.best,
                "reported": self.reported,
                "pending": self.means.steps,
                "convergence": asdict(self.convergence),
                "scaler": self.scaler.state_dict(),
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

        A DivergedError where one of them is no number; then nothing has been learned from the batch.
        """
        processes = self.processes
        torch.manual_seed(  # dropout
            self.recipe.seed * 1_000_003 + self.step + (processes.rank << RANK_BITS)
        )
        self.detector.train()
        for layer in self.frozen:
            layer.eval()
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext():
            raw = self._network(batch.images)
            answer = self.teacher.answer(batch.images) if self.teacher else None
        terms = self.detector.loss(raw, batch.targets)
        if self.teacher and answer is not None:
            terms |= self.teacher.terms(raw, answer)
        shares = torch.stack(list(terms.values()))
        sums = processes.sum(shares.detach())
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(shares.sum() * processes.count))
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.detector, self.recipe)
        *losses, gradient = self._read(torch.cat([sums, norm.to(sums.dtype).view(1)]))
        values = dict(zip(terms, losses, strict=True))
        self._check(values, batch)
        if not self.scaler.is_enabled():  # a gradient beyond float16 only lowers the scale
            self._check({"gradient": gradient}, batch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.recipe, self.step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        processes.average_statistics(self.detector)
        self.step += 1
        self._average()
        values["grad_norm"] = gradient
        self.means.add(values)
        return values

    def _read(self, numbers: Tensor) -> list[float]:
        """The only numbers that leave the device in a step."""
        values: list[float] = numbers.tolist()
        return values

    def _check(self, terms: Mapping[str, float], batch: Batch) -> None:
        for name, value in terms.items():
            if not math.isfinite(value):
                shown = ", ".join(f"{k} {v:g}" for k, v in terms.items())
                ids = [name for some in self.processes.gather(batch.ids) for name in some]
                raise DivergedError(
                    f"step {self.step}: {name!r} of the loss is {value} ({shown}) on images "
                    f"{', '.join(ids)}; lower `learning_rate` or look at their labels"
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

    def evaluate(self) -> tuple[Validation | None, Validation | None]:
        """How good the averaged weights are on the validation images, and on those learned from.

        They are kept as ``best.safetensors`` if they are.
        """
        averaged = copy.deepcopy(self.detector)
        averaged.load_state_dict(self.ema or self.detector.state_dict())
        run, protocol = self.run, self.recipe.protocol
        val = validate(averaged, run.val, run.class_map, protocol, self.processes) if run.val else None
        train = None
        if self.recipe.early_stop:
            some = even_sample(run.train, self.recipe.early_images)
            train = validate(averaged, some, run.class_map, protocol, self.processes)
            self.convergence = self.convergence.after(train.fitness, self.recipe)
        self.judged = self.step
        if val and val.fitness > self.best:
            self.best = val.fitness
            if self.processes.first:
                tensors = {f"model.{k}": v for k, v in averaged.state_dict().items()}
                results = {"validation": val.result.to_dict(), "figures": figures(val, run.val, run.class_map)}
                checkpoint.write(run.best, tensors, self._metadata() | results)
        return val, train


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples become lists, as they do in JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
