"""VGG16 as a backbone, against the facts of the paper and of VGG16+ConvDet."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from squeezedet.models.backbones import VGG16


@pytest.fixture(scope="module")
def network() -> VGG16:
    with torch.device("meta"):
        return VGG16().eval()


def test_parameters_of_each_layer(network: VGG16) -> None:
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in network.named_children()}
    assert counts == {
        "conv1_1": 1_792,
        "conv1_2": 36_928,
        "conv2_1": 73_856,
        "conv2_2": 147_584,
        "conv3_1": 295_168,
        "conv3_2": 590_080,
        "conv3_3": 590_080,
        "conv4_1": 1_180_160,
        "conv4_2": 2_359_808,
        "conv4_3": 2_359_808,
        "conv5_1": 2_359_808,
        "conv5_2": 2_359_808,
        "conv5_3": 2_359_808,
    }
    assert sum(counts.values()) == 14_714_688


@pytest.mark.parametrize(
    ("size", "grid"), [((1242, 375), (78, 24)), ((1248, 384), (78, 24)), ((17, 16), (2, 1)), ((1, 33), (1, 3))]
)
def test_the_map_keeps_the_last_odd_row_and_column(
    network: VGG16, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    features = network(torch.zeros(1, 3, size[1], size[0], device="meta"))
    assert features.shape == (1, network.channels, grid[1], grid[0])
    assert (network.cells(size[0]), network.cells(size[1])) == grid


def test_multiply_accumulates_at_the_papers_size(network: VGG16) -> None:
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 375, 1242, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(143.4, abs=0.01)


@torch.inference_mode()
def test_activations_neither_vanish_nor_explode() -> None:
    torch.manual_seed(0)
    features = VGG16()(torch.randn(1, 3, 32, 32) * 70)
    assert 0.1 < features.std() < 10
    assert features.min() == 0
