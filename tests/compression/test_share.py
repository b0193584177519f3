"""Weight sharing: k-means that gets better, centroids that learn with summed gradients."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from squeezedet.compression import share
from squeezedet.compression.prune import prune, remove
from squeezedet.compression.share import cluster, kmeans, nearest, start_centroids

floats = st.floats(-4, 4, width=32, allow_nan=False)
kernels = arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 5)), elements=floats)


def error(values: np.ndarray, centroids: np.ndarray) -> float:
    return float(((values - centroids[nearest(values, centroids)]) ** 2).sum())


@given(arrays(np.float64, st.integers(1, 200), elements=floats), st.integers(1, 40))
def test_kmeans_is_never_worse_than_its_start(values: np.ndarray, k: int) -> None:
    values = np.sort(values)
    first = start_centroids(values, k)
    assert 1 <= len(first) <= k
    last = kmeans(values, first)
    assert (np.diff(last) >= 0).all()
    assert error(values, last) <= error(values, first) * (1 + 1e-9) + 1e-12


@given(kernels, st.integers(1, 6))
def test_cluster_keeps_zeros_and_takes_the_nearest_value(kernel: np.ndarray, bits: int) -> None:
    found = cluster(kernel, bits)
    weight = found.weight()
    assert weight.shape == kernel.shape
    assert weight.dtype == np.float32
    assert not weight[kernel == 0].any()
    assert len(np.unique(found.codes)) <= 2**bits
    alive = kernel != 0
    if alive.any():
        gap = np.abs(kernel[alive][:, None] - found.centroids).min(axis=1)
        np.testing.assert_allclose(np.abs(weight - kernel)[alive], gap, atol=1e-5)


def test_a_few_values_are_kept_as_they_are() -> None:
    kernel = np.array([[0.5, 0, -2], [0.5, 3, 0]], np.float32)
    np.testing.assert_array_equal(cluster(kernel, 2).weight(), kernel)


def test_the_start_is_even_from_the_smallest_to_the_largest() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=10_000))
    found = start_centroids(values, 15)
    assert (len(found), found[0], found[-1]) == (15, values[0], values[-1])
    np.testing.assert_allclose(np.diff(found), np.ptp(values) / 14)


@pytest.mark.slow
def test_a_large_layer_takes_less_than_a_second() -> None:
    kernel = np.random.default_rng(0).normal(size=(1000, 512)).astype(np.float32)
    begin = time.process_time()
    cluster(kernel, 8)
    assert time.process_time() - begin < 1


def layer(density: float) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 16, 3))
    prune(net, {"0": density})
    return net


def parametrization_of(net: nn.Sequential) -> share.Clusters:
    found = cluster(net[0].weight.detach().numpy(), 4)
    share.parametrize_centroids(net, {"0": found})
    return found


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_a_centroids_gradient_is_the_sum_of_its_members(density: float) -> None:
    plain, shared = layer(density), layer(density)
    found = parametrization_of(shared)
    with torch.no_grad():
        plain[0].weight.copy_(torch.from_numpy(found.weight()))
    images = torch.rand(3, 4, 9, 9)
    for net in (plain, shared):
        net(images).square().sum().backward()
    single = plain[0].weight.grad.numpy().ravel()
    sums = np.bincount(found.codes.ravel(), single, minlength=len(found.centroids) + 1)
    gradient = shared[0].parametrizations["weight"].original.grad
    np.testing.assert_allclose(gradient.numpy(), sums[1:], rtol=1e-3, atol=1e-3)


def test_centroids_learn_and_assignments_do_not() -> None:
    net = layer(0.3)
    zeros = net[0].weight == 0
    found = parametrization_of(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.rand(3, 4, 9, 9)).square().sum().backward()
        optimizer.step()
    remove(net)
    learnt = net[0].weight.detach()
    assert not learnt[zeros].any()
    assert not np.array_equal(learnt.numpy(), found.weight())
    for code in range(1, len(found.centroids) + 1):
        assert len(np.unique(learnt.numpy()[found.codes == code])) == 1
