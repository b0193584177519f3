"""Recipes, their learning rates, and what follows from them."""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.data.sample import KITTI_DEFAULT
from squeezedet.errors import UsageError
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training.loop import BUNDLE_S, Pace, in_time
from squeezedet.training.recipe import (
    PAPER,
    SHAPES,
    ConfigFile,
    Convergence,
    Recipe,
    default_for,
    even_sample,
    from_saved,
    rate,
    read_config,
    shortened,
    to_toml,
    with_optimizer,
)
from squeezedet.training.train import Plan


def test_cosine() -> None:
    recipe = Recipe(steps=1000, warmup=100, learning_rate=1.0)
    assert rate(recipe, 0) == pytest.approx(0.01)
    assert rate(recipe, 99) == pytest.approx(1.0)
    assert rate(recipe, 550) == pytest.approx(0.505)  # half-way between 1 and 0.01
    assert rate(recipe, 1000) == pytest.approx(0.01)


def test_the_papers_steps_whatever_the_optimiser() -> None:
    for recipe in (PAPER, replace(Recipe(), schedule="steps", warmup=0, learning_rate=0.01)):
        paper = replace(recipe, steps=87_000)
        rates = [rate(paper, step) for step in (0, 9_999, 10_000, 80_000)]
        assert rates == [0.01, 0.01, 0.005, 0.01 / 2**8]


def test_an_optimiser_brings_its_own_numbers() -> None:
    assert with_optimizer(Recipe(), "sgd").clip == "tensor"
    assert with_optimizer(Recipe(), "sgd").schedule == "steps"
    assert with_optimizer(PAPER, "adamw").learning_rate == Recipe().learning_rate


@pytest.mark.parametrize("recipe", [Recipe(), PAPER])
def test_older_checkpoints_are_understood(recipe: Recipe) -> None:
    """They name neither schedule nor clip: these went with the optimiser."""
    values = asdict(recipe)
    assert from_saved(values) == recipe
    for name in ("schedule", "clip", "protocol", "early_stop", "early_rise", "early_images"):
        del values[name]
    assert from_saved(values) == recipe


def test_a_short_run_warms_up_for_a_tenth_of_it() -> None:
    assert shortened(Recipe(), 50).warmup == 5
    assert shortened(Recipe(), 20_000).warmup == Recipe().warmup


def test_windows_and_protocol_follow_from_the_network() -> None:
    assert default_for(ConvDet()).shapes == SHAPES
    small = default_for(ConvDet(ConvDetConfig(size=(416, 128), classes=("tram",))))
    assert small.shapes[0] == (272, 80)
    assert (small.protocol, default_for(ConvDet()).protocol) == ("voc", "kitti")


def test_convergence() -> None:
    recipe = Recipe(early_stop=2, early_rise=0.01)
    state = Convergence()
    reached = []
    for mean_ap in (0.0, 0.3, 0.305, 0.32, 0.325, 0.33):
        state = state.after(mean_ap, recipe)
        reached.append(state.reached(recipe))
    assert reached == [False, False, False, False, False, True]
    assert state.best == 0.32
    assert not state.reached(Recipe())


def test_the_sample_is_fixed_and_even() -> None:
    numbers = list(range(101))
    assert even_sample(numbers, 5) == [0, 25, 50, 75, 100]  # type: ignore[arg-type, comparison-overlap]
    assert even_sample(numbers[:3], 5) == [0, 1, 2]  # type: ignore[arg-type, comparison-overlap]


def test_as_many_steps_as_fit() -> None:
    pace, recipe = Pace(step_s=1.0, judge_s=100.0), Recipe(steps=1000, validate_every=1000)
    fitted = in_time(recipe, pace, 220 + BUNDLE_S)  # 200 s for the end, 20 for steps
    assert fitted.steps == 16  # 20 s at 1.1 s, and a tenth to spare
    assert fitted.warmup == 1
    assert in_time(recipe, pace, 1e6) == recipe
    assert in_time(recipe, pace, 1.0).steps == 1


# ------------------------------------------------------------ the recipes that are shipped

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_makes_a_plan(path: Path) -> None:
    networks = ("tiny-ssd", "squeezedet-two-scale", "squeezedet")
    network = next(name for name in networks if path.stem.startswith(name))
    planned = Plan.create(network, KITTI_DEFAULT, (), file=read_config(path))
    assert planned.recipe.paste == (0.5 if "two-scale" in path.stem else 1.0)
    assert planned.detector.config.classes == KITTI_DEFAULT.names


# ------------------------------------------------------------ a recipe as a file

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False),
    TEXT,
    st.lists(st.one_of(st.integers(0, 9), TEXT), max_size=3),
)
TABLES = st.recursive(
    st.dictionaries(TEXT, VALUES, max_size=4),
    lambda inner: st.dictionaries(TEXT, st.one_of(VALUES, inner), max_size=4),
    max_leaves=12,
)


@given(TABLES)
def test_what_is_written_is_read(table: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(table)) == table


@given(st.floats())
def test_numbers_keep_every_bit(value: float) -> None:
    read = tomllib.loads(to_toml({"x": value}))["x"]
    assert read == value or (math.isnan(read) and math.isnan(value))


def test_a_recipe_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    network = ConvDetConfig(classes=("a", "b"), size=(320, 160))
    path.write_text(to_toml({"recipe": asdict(PAPER), "network": asdict(network), "run": {}}))
    file = read_config(path)
    assert file.override("recipe", Recipe()) == PAPER
    assert file.override("network", ConvDetConfig()) == network


def test_nothing_is_overridden_without_a_file() -> None:
    assert ConfigFile().override("recipe", PAPER) is not None
    assert ConfigFile().override("recipe", PAPER) == PAPER


def test_an_integer_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[recipe]\nlearning_rate = 1\n")
    recipe = read_config(path).override("recipe", Recipe())
    assert recipe == replace(Recipe(), learning_rate=1.0)
    assert type(recipe.learning_rate) is float


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[recipe]\nstep = 5", "[recipe] has no 'step'; did you mean 'steps'?"),
        ("[recipe]\nsteps = 5.5", "steps: 5.5 is not a whole number"),
        ("[recipe]\nsteps = true", "steps: True is not a whole number"),
        ("[recipe]\nbf16 = 1", "amp: 1 is not true or false"),
        ("[recipe]\nsteps = 0", "steps must be from 1"),
        ("[recipe]\nlearning_rate = nan", "learning_rate: nan is not a number"),
        ("[recipe]\nschedule = 'cosines'", "schedule: no 'cosines'; did you mean 'cosine'?"),
        ("[recipe]\nshapes = [[64]]", "shapes: [64] has not 2 parts but 1"),
        ("[recipe]\nshapes = []", "shapes must be one or more"),
        ("[recipe]\nfrozen = 'conv1'", "frozen: is no list"),
        ("[recipe]\nscale = [2, 1]", "scale must be a range"),
        ("[network]\nsizes = [64, 64]", "[network] has no 'sizes'; did you mean 'size'?"),
        ("[recip]\nsteps = 5", "unknown table 'recip'; did you mean 'recipe'?"),
        ("steps = 5", "has outside of a table 'steps'"),
        ("[recipe\n", "is no TOML"),
        ("\x00", "is no TOML"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as said:
        file = read_config(path)
        file.override("recipe", Recipe())
        file.override("network", ConvDetConfig())
    assert sentence in str(said.value)
    assert str(path) in str(said.value)
    assert "\n" not in str(said.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_config(tmp_path / "none.toml")
