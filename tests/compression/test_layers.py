"""What kernels hold, counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from squeezedet.compression.prune import measure, round_to_half


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
