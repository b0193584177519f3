"""Recipe: everything that decides how a run goes, in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from squeezedet.detectors.convdet import PAPER_SIZE
from squeezedet.detectors.network import DetectionNetwork

# Windows of the same number of pixels, one shape a batch: wide ones as KITTI's, and others.
SHAPES = ((832, 256), (720, 288), (640, 336), (544, 384))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a detector is trained.

    Attributes:
        steps: optimiser steps.
        batch: images a step.
        optimizer: ``adamw``, or ``sgd`` with momentum 0.9 as in the paper.
        schedule: how the rate falls: ``cosine``, or ``steps``: halved as often over the run as
            over the paper's 87,000 steps.
        learning_rate: after the warm-up.
        warmup: steps of linear warm-up.
        weight_decay: on kernels only (decoupled for adamw).
        clip: what ``clip_norm`` concerns: all gradients together (``global``), or each tensor
            (``tensor``, as in the paper's code).
        clip_norm: largest norm of the gradients.
        ema: decay of the moving average of the weights that is validated and shipped; 0 for none.
        frozen: layers that are not trained, by name or pattern (``backbone.fire*``).
        shapes: (width, height) of the training windows; one is drawn for each batch.
        scale: range of random scale around the size that detection uses.
        stretch: range of random width against height.
        min_visible: an object with a smaller visible share in the window becomes a region.
        augmentation: ``window``: scale and crop around the size that detection uses; ``drift``: the
            SqueezeDet paper's; ``ssd``: SSD's, section 2.2 of its paper.
        colour: strength of the colour changes, 0 for none.
        balance: images of rare classes are repeated up to the share that this number
            demands of each class, by the square root rule of LVIS; 0 for none.
        paste: how many objects of rare classes (those that ``balance`` repeats) are pasted into
            a training image on average, with as many patches of background.
        seed: of everything random.
        validate_every: steps between validations.
        checkpoint_every_s: seconds between checkpoints.
        workers: processes that prepare batches.
        bf16: run convolutions in bfloat16 where the processor has it.
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
    colour: float = 0.6
    balance: float = 0.4
    paste: float = 0.0
    seed: int = 0
    validate_every: int = 1000
    checkpoint_every_s: float = 180.0
    workers: int = 1
    bf16: bool = True


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
    colour=0.0,
    balance=0.0,
    bf16=False,
)


def default_for(detector: DetectionNetwork) -> Recipe:
    """The default recipe; a network of one size is trained at that size."""
    rule = detector.input_rule
    if not rule.fixed:
        return Recipe()
    augmentation: Literal["window", "ssd"] = "ssd" if detector.kind == "tiny-ssd" else "window"
    return Recipe(shapes=((rule.width, rule.height),), augmentation=augmentation)


def with_optimizer(recipe: Recipe, optimizer: Literal["adamw", "sgd"]) -> Recipe:
    """The recipe with another optimiser, and with the schedule, rate, decay and clip that belong to it."""
    source = PAPER if optimizer == "sgd" else Recipe()
    return replace(
        recipe,
        optimizer=optimizer,
        schedule=source.schedule,
        learning_rate=source.learning_rate,
        warmup=source.warmup,
        weight_decay=source.weight_decay,
        clip=source.clip,
        clip_norm=source.clip_norm,
    )
