"""The scan, and the densities that follow from it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from squeezedet.compression.prune import Curve, Sensitivity, choose_densities, kernels, scan
from squeezedet.errors import UsageError

DENSITIES = (0.5, 0.25, 0.1)


def test_a_scan_prunes_one_layer_at_a_time_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 10, 3))
    before = [layer.weight.detach().clone() for layer in kernels(net).values()]
    seen = []

    def cost() -> float:
        shares = [float((k.weight != 0).float().mean()) for k in kernels(net).values()]
        seen.append(tuple(round(s, 2) for s in shares))
        return sum(shares)

    found = scan(net, cost, (0.5, 0.25))
    assert seen == [(1, 1), (0.5, 1), (0.25, 1), (1, 0.5), (1, 0.25)]
    assert found.base == 2
    assert [curve.cost for curve in found.curves] == [(1.5, 1.25), (1.5, 1.25)]
    for layer, weight in zip(kernels(net).values(), before, strict=True):
        assert torch.equal(layer.weight, weight)


def sensitivity(*costs: tuple[float, ...]) -> Sensitivity:
    curves = tuple(Curve(f"layer{i}", 1000, cost) for i, cost in enumerate(costs))
    return Sensitivity(1.0, DENSITIES, curves)


def test_the_layer_that_minds_least_is_pruned_most() -> None:
    found = sensitivity((5, 9, 20), (1.01, 1.02, 1.1), (1.3, 2, 5))
    chosen = choose_densities(found, 0.55)
    assert chosen.get("layer0", 1.0) == 1
    assert chosen["layer1"] <= 0.25


def test_a_layer_that_gains_by_being_pruned_is_no_reason() -> None:
    assert choose_densities(sensitivity((1.5, 0.2, 1.6)), 1.0) == {}


@given(st.lists(st.tuples(*[st.floats(0, 50)] * 3), min_size=1, max_size=8), st.floats(0.1, 1.0))
def test_the_budget_is_kept(costs: list[tuple[float, ...]], total: float) -> None:
    chosen = choose_densities(sensitivity(*costs), total)
    kept = sum(chosen.get(f"layer{i}", 1.0) for i in range(len(costs)))
    assert kept <= total * len(costs) + 1e-6


def test_a_budget_out_of_reach() -> None:
    with pytest.raises(UsageError, match="cannot be reached: the smallest"):
        choose_densities(sensitivity((1, 1, 1)), 0.05)
