"""Recipes as TOML: what is written can be read, and what is wrong is named."""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.errors import UsageError
from squeezedet.models.squeezedet import ConvDetConfig
from squeezedet.training.recipe import PAPER, ConfigFile, Recipe, read_config, to_toml

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
        ("[recipe]\nsteps = 5.5", "steps: 5.5 is no int"),
        ("[recipe]\nsteps = true", "steps: True is no int"),
        ("[recipe]\nbf16 = 1", "amp: 1 is no bool"),
        ("[recipe]\nsteps = 0", "steps must be from 1"),
        ("[recipe]\nlearning_rate = nan", "learning_rate must be from 0"),
        ("[recipe]\nschedule = 'cosines'", "'cosines' is none of 'cosine', 'steps'"),
        ("[recipe]\nshapes = [[64]]", "[64] must have 2 items"),
        ("[recipe]\nshapes = []", "shapes must be one or more"),
        ("[recipe]\nfrozen = 'conv1'", "'conv1' is no list"),
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
