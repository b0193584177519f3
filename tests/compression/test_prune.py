"""Pruning: exact densities, zeros that stay, what kernels hold, and the densities of each layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn
from torch.nn import functional as F

from squeezedet.compression.prune import (
    Curve,
    Schedule,
    Sensitivity,
    choose_densities,
    gradual,
    kernels,
    mask_of,
    measure,
    parametrization_of,
    parametrize_masks,
    prune,
    read_numbers,
    remove,
    round_to_half,
    scan,
    uniform,
)
from squeezedet.errors import UsageError

# ------------------------------------------------------------ what kernels hold


def test_a_kernel_with_long_gaps() -> None:
    kernel = np.zeros((8, 8), np.float32)
    kernel.flat[[0, 17, 50]] = (1, 2, 1)  # 16 zeros, then 32
    size = measure("x", kernel)
    assert (size.weights, size.kept, size.fillers, size.values) == (64, 3, 3, 2)
    assert size.density == 3 / 64
    share = np.array([61, 2, 1]) / 64
    assert size.entropy_bits == pytest.approx(-(share * np.log2(share)).sum())
    assert size.stored_bytes(shared=True) == 5 + 8  # 6 entries of 2 + 4 bits; a codebook
    assert size.stored_bytes(shared=False) == 27  # 6 entries of 32 + 4 bits


def test_a_dense_kernel_has_no_gaps() -> None:
    kernel = np.arange(1, 65, dtype=np.float32)
    assert measure("x", kernel).stored_bytes(shared=False) == 256
    assert measure("x", kernel).stored_bytes(shared=True) == 48 + 256


def test_rounding_makes_no_negative_zero() -> None:
    net = nn.Sequential(nn.Linear(3, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[-1e-12, 0.1, -0.0]]))
    round_to_half(net)
    weight = net[0].weight.detach().numpy()[0]
    np.testing.assert_array_equal(weight, np.float32([0, np.float16(0.1), 0]))
    assert not np.signbit(weight).any()


# ------------------------------------------------------------ masks


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


# ------------------------------------------------------------ densities from a number or a file


LAYERS = ("conv1", "fire2.squeeze1x1", "fire2.expand3x3", "conv10")


def test_uniform_leaves_what_sees_the_pixels() -> None:
    net = nn.Sequential(nn.Conv2d(8, 4, 1), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(9, 2))
    assert uniform(net, 0.3) == {"0": 0.3, "3": 0.3}
    assert uniform(net, 1.0) == {}


def test_files(tmp_path: Path) -> None:
    toml = tmp_path / "density.toml"
    toml.write_text('"*" = 0.5\nconv1 = 1\n[fire2]\n"expand*" = 0.33\n')
    wanted = dict(zip(LAYERS, (1, 0.5, 0.33, 0.5), strict=True))
    assert read_numbers(toml, LAYERS, 0, 1) == wanted
    toml.write_text('"fire2.*" = 0.2')
    assert read_numbers(toml, LAYERS, 0, 1) == {"fire2.squeeze1x1": 0.2, "fire2.expand3x3": 0.2}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("conv11 = 0.5", "no layer 'conv11'"),
        ("conv1 = 0", "above 0 to 1, not 0"),
        ("conv1 = 1.5", "above 0 to 1, not 1.5"),
        ("conv1 = true", "not True"),
        ("conv1 = nan", "not nan"),
        ("conv1 = [", "is no TOML"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "d.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_numbers(path, LAYERS, 0, 1)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_numbers(tmp_path / "d.toml", LAYERS, 0, 1)


# ------------------------------------------------------------ the scan, and the densities that follow from it


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
