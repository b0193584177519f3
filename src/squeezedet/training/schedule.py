"""Learning rate of each step."""

from __future__ import annotations

import math

from squeezedet.training.recipe import Recipe

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
