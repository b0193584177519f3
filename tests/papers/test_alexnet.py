"""AlexNet as a backbone."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from squeezedet.papers.faster_rcnn import AlexNet, normalize_and_pool


def test_parameters_of_each_layer() -> None:
    with torch.device("meta"):
        network = AlexNet()
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in network.named_children()}
    assert counts == {"conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624}
    assert sum(counts.values()) == 2_334_080


@pytest.mark.parametrize(("size", "grid"), [((1248, 384), (78, 24)), ((16, 32), (1, 2)), ((1242, 375), (77, 23))])
def test_a_multiple_of_16_gives_one_cell_for_each_16_pixels(size: tuple[int, int], grid: tuple[int, int]) -> None:
    with torch.device("meta"):
        features = AlexNet()(torch.zeros(1, 3, size[1], size[0]))
    assert features.shape == (1, AlexNet.channels, grid[1], grid[0])
    assert (AlexNet.cells(size[0]), AlexNet.cells(size[1])) == grid


def test_multiply_accumulates_at_the_papers_size() -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        AlexNet()(torch.zeros(1, 3, 375, 1242))
    assert counter.get_total_flops() / 2e9 == pytest.approx(6.8, abs=0.05)


def test_normalisation_is_caffes() -> None:
    """x / (1 + alpha / 5 * the sum of squares over five channels) ^ beta; then the pool."""
    torch.manual_seed(0)
    x = torch.rand(1, 7, 3, 3, dtype=torch.float64) * 200
    squares = torch.nn.functional.pad(x.square(), (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
    expected = (x / (1 + 1e-4 / 5 * squares) ** 0.75).amax((2, 3), keepdim=True)
    assert torch.allclose(normalize_and_pool(x), expected)


@torch.inference_mode()
def test_activations_neither_vanish_nor_explode() -> None:
    torch.manual_seed(0)
    features = AlexNet()(torch.randn(1, 3, 64, 64) * 70)
    assert 0.1 < features.std() < 10
    assert features.min() == 0
