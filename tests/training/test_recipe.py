"""Recipes, their learning rates, and what follows from them."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training.loop import BUNDLE_S, Pace, in_time
from squeezedet.training.recipe import (
    PAPER,
    SHAPES,
    Convergence,
    Recipe,
    default_for,
    even_sample,
    from_saved,
    rate,
    shortened,
    with_optimizer,
)


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
