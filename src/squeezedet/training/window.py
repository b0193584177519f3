"""A training window out of one image: the augmentation that a recipe asks for."""

from __future__ import annotations

import numpy as np

from squeezedet.runtime.preprocess import InputRule
from squeezedet.training.augment import Example, colour, crop_and_scale, drift, flip
from squeezedet.training.augment_ssd import ssd_augment
from squeezedet.training.recipe import Recipe


def augment(
    example: Example,
    recipe: Recipe,
    size: tuple[int, int],
    rng: np.random.Generator,
    rule: InputRule,
) -> Example:
    """A training window of the given size out of one image."""
    if recipe.augmentation == "ssd":
        return ssd_augment(example, size, rng)
    if recipe.augmentation == "drift":
        example = drift(example, rng)
        h, w = example.pixels.shape[:2]
        example = crop_and_scale(example, (size[0] / w, size[1] / h), (0.0, 0.0), size, 0.0)
    else:
        example = random_window(example, recipe, size, rng, rule)
    if rng.random() < 0.5:
        example = flip(example)
    return colour(example, rng, recipe.colour) if recipe.colour else example


def random_window(
    example: Example,
    recipe: Recipe,
    size: tuple[int, int],
    rng: np.random.Generator,
    rule: InputRule,
) -> Example:
    """Scale around the size that detection uses, and cut a window, often around an object."""
    height, width = example.pixels.shape[:2]
    fit = rule.size(width, height)
    zoom = np.exp(rng.uniform(*np.log(recipe.scale)))
    stretch = np.sqrt(np.exp(rng.uniform(*np.log(recipe.stretch))))
    sx, sy = fit[0] / width * zoom * stretch, fit[1] / height * zoom / stretch
    scaled = np.array([width * sx, height * sy])
    room = scaled - np.array(size)
    origin = rng.uniform(np.minimum(room, 0), np.maximum(room, 0))
    if len(example.xyxy) and rng.random() < 0.5:
        box = example.xyxy[rng.integers(len(example.xyxy))] * np.array([sx, sy] * 2)
        around = (box[:2] + box[2:]) / 2 - np.array(size) * rng.uniform(0.2, 0.8, 2)
        origin = np.clip(around, np.minimum(room, 0), np.maximum(room, 0))
    return crop_and_scale(
        example,
        (float(sx), float(sy)),
        (float(origin[0]), float(origin[1])),
        size,
        recipe.min_visible,
    )
