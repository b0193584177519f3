"""Recipe: everything that decides how a run goes, in one frozen dataclass; and its TOML file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from squeezedet.data.sample import Sample
from squeezedet.errors import MissingExtraError, UsageError
from squeezedet.evaluation.kitti import KITTI_CLASSES
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezedet import PAPER_SIZE
from squeezedet.preprocess import STRIDE, InputRule
from squeezedet.text import did_you_mean
from squeezedet.toml import Fields, override, read_toml

# Windows of the same number of pixels, one shape a batch: wide ones as KITTI's, and others. They are for SqueezeDet's
# own input of this size.
SIZE = (1248, 384)
SHAPES = ((832, 256), (720, 288), (640, 336), (544, 384))
MIN_SIDE, MAX_SIDE = 16, 4096

RENAMED = MappingProxyType({"bf16": "amp", "colour": "color"})
"""Fields of older recipes."""

Protocol = Literal["kitti", "voc", "coco"]

# Least and largest value -> the numbers.
RANGES: Mapping[tuple[float, float], tuple[str, ...]] = MappingProxyType(
    {
        (0, 1): ("ema", "min_visible", "balance", "mosaic", "early_rise"),
        (0, 10): ("color",),
        (0, 100): ("paste",),
        (0, 256): ("workers",),
        (1, 4096): ("batch",),
        (0, 1e3): ("learning_rate", "weight_decay"),
        (0, 1e9): ("warmup", "clip_norm", "early_stop", "checkpoint_every_s"),
        (1, 1e9): ("steps", "validate_every", "early_images"),
        (0, 2**31 - 1): ("seed",),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a detector is trained.

    Attributes:
        steps: optimizer steps.
        batch: images a step.
        optimizer: ``adamw``, or ``sgd`` with momentum 0.9 as in the paper.
        schedule: how the rate falls: ``cosine``, or ``steps``: halved as often over the run as over the paper's 87,000
            steps.
        learning_rate: after the warm-up.
        warmup: steps of linear warm-up.
        weight_decay: on kernels only (decoupled for adamw).
        clip: what ``clip_norm`` concerns: all gradients together (``global``), or each tensor (``tensor``, as in the
            paper's code).
        clip_norm: largest norm of the gradients.
        ema: decay of the moving average of the weights that is validated and shipped; 0 for none.
        frozen: layers that are not trained, by name or pattern (``backbone.fire*``).
        shapes: (width, height) of the training windows; one is drawn for each batch. Several shapes, with ``scale``,
            are what other trainers call multi-scale training.
        scale: range of random scale around the size that detection uses.
        stretch: range of random width against height.
        min_visible: an object with a smaller visible share in the window becomes a region.
        augmentation: ``window``: scale and crop around the size that detection uses; ``drift``: the SqueezeDet paper's;
            ``ssd``: SSD's, section 2.2 of its paper.
        color: strength of the color changes, 0 for none.
        balance: images of rare classes are repeated up to the share that this number demands of each class, by the
            square root rule of LVIS; 0 for none.
        paste: how many objects of rare classes (those that ``balance`` repeats) are pasted into a training image on
            average, with as many patches of background.
        mosaic: share of the training images that are made of four, each at half of its scale; for the augmentation
            ``window`` alone.
        teacher: a larger ConvDet model, shipped or in a file, whose answers are learned from beside the labels
            (distillation, see ``trainer.Teacher``); empty for none.
        seed: of everything random.
        protocol: whose rules validation follows: ``kitti``, ``voc`` or ``coco``.
        validate_every: steps between validations.
        early_stop: stop when the mean AP on a fixed sample of the training images has not risen by more than
            ``early_rise`` in so many validations; 0 never does. This is the SqueezeDet paper's rule: train until the
            mAP on the training set converges.
        early_rise: a smaller rise of that mean AP, from 0 to 1, is none.
        early_images: size of that sample.
        checkpoint_every_s: seconds between checkpoints.
        workers: processes that prepare batches.
        device: where it is trained: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        amp: run convolutions in bfloat16, or float16, where the device is faster so.

    Raises:
        ValueError: a field has a value that nothing can be trained with.
    """

    steps: int = 6000
    batch: int = 8
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "steps"] = "cosine"
    learning_rate: float = 5e-4
    warmup: int = 200
    weight_decay: float = 0.02
    clip: Literal["global", "tensor"] = "global"
    clip_norm: float = 50.0
    ema: float = 0.999
    frozen: tuple[str, ...] = ()
    shapes: tuple[tuple[int, int], ...] = SHAPES
    scale: tuple[float, float] = (0.6, 1.5)
    stretch: tuple[float, float] = (0.9, 1.1)
    min_visible: float = 0.35
    augmentation: Literal["window", "drift", "ssd"] = "window"
    color: float = 0.6
    balance: float = 0.4
    paste: float = 0.0
    mosaic: float = 0.0
    teacher: str = ""
    seed: int = 0
    protocol: Protocol = "kitti"
    validate_every: int = 1000
    early_stop: int = 0
    early_rise: float = 0.005
    early_images: int = 64
    checkpoint_every_s: float = 180.0
    workers: int = 1
    device: str = "auto"
    amp: bool = True

    def __post_init__(self) -> None:
        for (low, high), names in RANGES.items():
            for name in names:
                value = getattr(self, name)
                if not low <= value <= high:
                    raise ValueError(f"{name} must be from {low:g} to {high:g}, not {value!r}")
        for name in ("scale", "stretch"):
            least, most = getattr(self, name)
            if not 0 < least <= most < math.inf:
                raise ValueError(f"{name} must be a range of positive numbers: {least!r}, {most!r}")
        if self.mosaic and self.augmentation != "window":
            raise ValueError(f"mosaic needs the augmentation 'window', not {self.augmentation!r}")
        sides = [side for shape in self.shapes for side in shape]
        if not sides or not all(MIN_SIDE <= side <= MAX_SIDE for side in sides):
            raise ValueError(f"shapes must be one or more, with sides from {MIN_SIDE} to {MAX_SIDE}")


PAPER = Recipe(
    batch=20,
    optimizer="sgd",
    schedule="steps",
    learning_rate=0.01,
    warmup=0,
    weight_decay=1e-4,
    clip="tensor",
    clip_norm=1.0,
    ema=0.0,
    shapes=(PAPER_SIZE,),
    augmentation="drift",
    color=0.0,
    balance=0.0,
    amp=False,
)


def default_for(detector: DetectionNetwork) -> Recipe:
    """The default recipe for a network, its classes and this machine.

    A network of one size is trained at that size; classes that are not KITTI's are evaluated by VOC's protocol.
    """
    rule, names = detector.input_rule, {name.lower() for name in detector.config.classes}
    recipe = Recipe(
        protocol="kitti" if names <= {rule.name for rule in KITTI_CLASSES} else "voc", workers=default_workers()
    )
    if not rule.fixed:
        return replace(recipe, shapes=_windows(rule))
    augmentation: Literal["window", "ssd"] = "ssd" if detector.kind == "tiny-ssd" else "window"
    return replace(recipe, shapes=((rule.width, rule.height),), augmentation=augmentation)


def _windows(rule: InputRule) -> tuple[tuple[int, int], ...]:
    """``SHAPES`` for an input of another size."""
    factor = math.sqrt(rule.width * rule.height / (SIZE[0] * SIZE[1]))
    shapes = (tuple(max(2 * STRIDE, round(side * factor / STRIDE) * STRIDE) for side in shape) for shape in SHAPES)
    return tuple((width, height) for width, height in shapes)


def default_workers() -> int:
    """One process that prepares images for two cores: the other computes."""
    return max(1, min(8, (os.cpu_count() or 1) // 2))


def with_optimizer(recipe: Recipe, optimizer: Literal["adamw", "sgd"]) -> Recipe:
    """The recipe with another optimizer, and with the numbers and schedule that belong to it."""
    source = PAPER if optimizer == "sgd" else Recipe()
    own = ("optimizer", "schedule", "learning_rate", "warmup", "weight_decay", "clip", "clip_norm")
    return replace(recipe, **{name: getattr(source, name) for name in own})


def shortened(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with so many steps, of which at most a tenth warm up."""
    return replace(recipe, steps=steps, warmup=min(recipe.warmup, steps // 10))


def from_saved(values: Mapping[str, Any]) -> Recipe:
    """The recipe of a checkpoint; one that is older than a field had what its optimizer has.

    Raises:
        KeyError, TypeError, ValueError: it is no recipe.
    """
    renamed = {RENAMED.get(name, name): value for name, value in values.items()}
    return replace(with_optimizer(Recipe(), values["optimizer"]), **renamed)


# ------------------------------------------------------------ learning rate

PAPER_STEPS, PAPER_HALVING = 87_000, 10_000
LOWEST = 0.01
"""Where the cosine ends, as a share of the learning rate."""


def rate(recipe: Recipe, step: int) -> float:
    """Learning rate of a step: linear warm-up, then the cosine or the paper's steps."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    if recipe.schedule == "steps":
        period = max(1, recipe.steps * PAPER_HALVING / PAPER_STEPS)
        return recipe.learning_rate * 0.5 ** int(step / period)
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return recipe.learning_rate * (LOWEST + (1 - LOWEST) * cosine)


# ------------------------------------------------------------ early stop


@dataclass(frozen=True, slots=True)
class Convergence:
    """How the mean AP, 0 to 1, on the training images goes: at its last rise, and how many validations ago that was."""

    best: float = -1.0  # before the first validation
    waited: int = 0

    def after(self, mean_ap: float, recipe: Recipe) -> Convergence:
        """The state after one more validation."""
        if mean_ap > self.best + recipe.early_rise:
            return Convergence(mean_ap, 0)
        return Convergence(self.best, self.waited + 1)

    def reached(self, recipe: Recipe) -> bool:
        """Whether the run shall end."""
        return 0 < recipe.early_stop <= self.waited


def even_sample(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most so many samples, evenly spaced, always the same."""
    index = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[i] for i in index]


# ------------------------------------------------------------ a recipe as a TOML file

TABLES = ("recipe", "network")
PASSED_OVER = ("class_map", "input", "run")
"""Tables of a run's config.toml that say how it was made."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The fields of the recipe and of the network's configuration that a file overrides; its path is for errors."""

    path: Path | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)

    def override(self, table: str, values: Fields) -> Fields:
        """A dataclass with the fields of a table; a UsageError where it has no such field, or no such value."""
        changes: Mapping[str, Any] = getattr(self, table)
        if table == "recipe":
            changes = {RENAMED.get(name, name): value for name, value in changes.items()}
        return override(values, changes, f"{self.path}: [{table}]")


def read_config(path: Path) -> ConfigFile:
    """Read a file; a UsageError where it cannot be read, is no TOML, or has an unknown table."""
    values = read_toml(path, "recipe")
    for name, table in values.items():
        if name not in (*TABLES, *PASSED_OVER) or not isinstance(table, dict):
            kind = "an unknown table" if isinstance(table, dict) else "outside of a table"
            raise UsageError(
                f"{path}: has {kind} {name!r}{did_you_mean(name, TABLES)}; a recipe's tables are [recipe] and [network]"
            )
    return ConfigFile(path, values.get("recipe", {}), values.get("network", {}))


def to_toml(table: Mapping[str, Any]) -> str:
    """A table as TOML text; None, which TOML does not know, is left out."""
    try:
        import tomli_w
    except ImportError as error:
        raise MissingExtraError("writing a recipe", "train") from error
    return tomli_w.dumps(_without_none(table))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    if isinstance(value, str):  # a lone surrogate of a file's name is no text
        return value.encode("utf-8", "replace").decode()
    return value
