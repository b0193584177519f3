"""The recipes of the shipped models are files that the strict reader takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from squeezedet.data.sample import KITTI_DEFAULT
from squeezedet.training.recipe import read_config
from squeezedet.training.train import Plan

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_makes_a_plan(path: Path) -> None:
    networks = ("tiny-ssd", "squeezedet-two-scale", "squeezedet")
    network = next(name for name in networks if path.stem.startswith(name))
    planned = Plan.create(network, KITTI_DEFAULT, (), file=read_config(path))
    assert planned.recipe.paste == (0.5 if "two-scale" in path.stem else 1.0)
    assert planned.detector.config.classes == KITTI_DEFAULT.names
