"""Pruning: exact densities, and zeros that stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn
from torch.nn import functional as F

from squeezedet.compression.prune import (
    Schedule,
    gradual,
    kernels,
    mask_of,
    parametrization_of,
    parametrize_masks,
    prune,
    remove,
)

floats = st.floats(-1, 1, width=32, allow_nan=False)


@given(arrays(np.float32, array_shapes(max_dims=4, max_side=6), elements=floats), st.floats(0.01, 1.0))
def test_density_is_exact_and_the_largest_stay(weight: np.ndarray, density: float) -> None:
    mask = mask_of(torch.from_numpy(weight), density).numpy()
    assert mask.shape == weight.shape
    assert mask.sum() == max(1, round(density * weight.size))
    if not mask.all():
        assert np.abs(weight[mask]).min() >= np.abs(weight[~mask]).max()


def test_equal_weights_still_give_an_exact_number() -> None:
    assert mask_of(torch.ones(10, 10), 0.37).sum() == 37


def test_the_schedule_falls_along_a_cubic() -> None:
    assert [gradual(0.2, t) for t in (-1, 0, 1, 2)] == [1, 1, 0.2, 0.2]
    assert gradual(0.2, 0.5) == pytest.approx(0.2 + 0.8 / 8)
    steps = [gradual(0.1, t / 50) for t in range(51)]
    assert steps == sorted(steps, reverse=True)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten())


def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    F.mse_loss(net(torch.rand(2, 3, 8, 8)), torch.zeros(2, 8 * 16)).backward()
    optimizer.step()


def test_prune_leaves_other_layers_and_makes_no_negative_zeros() -> None:
    net = network()
    before = net[0].weight.detach().clone()
    prune(net, {"2": 0.25})
    assert torch.equal(net[0].weight, before)
    kept = net[2].weight.detach().numpy()
    assert np.count_nonzero(kept) == kept.size // 4
    assert not np.signbit(kept[kept == 0]).any()


def test_masks_hold_through_training_with_momentum_and_decay() -> None:
    net = network()
    mask = mask_of(net[2].weight, 0.3)
    parametrize_masks(net, {"2": mask})
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    before = net[2].weight.detach().clone()
    for _ in range(5):
        step(net, optimizer)
        assert not net[2].weight[~mask].any()
    assert not torch.equal(net[2].weight[mask], before[mask])  # the others learn
    remove(net)
    assert type(net[2]) is nn.Conv2d
    assert {name for name, _ in net.named_parameters()} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert torch.equal(net[2].weight != 0, mask)


@pytest.mark.parametrize("ramp", [0, 7, 60])
def test_gradual_pruning_is_monotone_and_ends_exactly(ramp: int) -> None:
    net = network()
    schedule = Schedule({"0": 0.5, "2": 0.1}, ramp)
    schedule.begin(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    last = {name: torch.ones_like(kernels(net)[name].weight, dtype=torch.bool) for name in "02"}
    for i in range(ramp + 3):
        schedule.update(net, i)
        for name in "02":
            mask = parametrization_of(kernels(net)[name]).mask
            assert not (mask & ~last[name]).any()  # what is pruned stays pruned
            last[name] = mask.clone()
        step(net, optimizer)
    assert last["0"].sum() == 108
    assert last["2"].sum() == 58
