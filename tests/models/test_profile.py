"""A module is traced: nothing is computed, and every operation is seen."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from squeezedet.cost.layers import count
from squeezedet.errors import ModelError
from squeezedet.models.profile import trace


class OfNumbers(nn.Module):
    """Its shapes depend on what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = self.conv(x).flatten(2)[0]
        return kept[:, : int((x == 0).sum().item())]


def test_nothing_is_computed_and_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU())
    module[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    graph = trace(module, (1, 3, 100_000, 100_000))  # 149 GiB, if anything were computed
    assert [step.kind for step in graph.steps] == ["conv", "norm", "relu"]
    assert graph.values[graph.outputs[0]].elements == 4 * 99_998**2
    assert module.training and not module[1].training
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in module.modules())
    assert module(torch.zeros(1, 3, 5, 5)).shape == (1, 4, 3, 3)


def test_a_module_that_looks_at_numbers_runs_on_zeros() -> None:
    graph = trace(OfNumbers(), (1, 3, 4, 4))
    assert graph.steps[0].name == "conv"
    assert graph.values[graph.outputs[0]].elements == 2 * 16
    with torch.device("meta"):
        without_numbers = OfNumbers()
    with pytest.raises(ModelError, match="OfNumbers does not run on an input of 1x3x4x4"):
        trace(without_numbers, (1, 3, 4, 4))


def test_an_input_that_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(ModelError, match=r"does not run on an input of 1x3x2x2: .*5 x 5") as caught:
        trace(nn.Conv2d(3, 4, 5), (1, 3, 2, 2))
    assert "\n" not in str(caught.value)
    trace(nn.Conv2d(3, 4, 5), (1, 3, 9, 9))  # the modes of torch are as they were
    assert torch.ones(2).sum() == 2


def test_views_constants_and_writing_in_place() -> None:
    class Odd(nn.Module):
        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 3))
            self.register_buffer("scale", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            product = x.permute(0, 2, 3, 1) @ (self.weight * self.scale).t()
            buffer = torch.zeros(1, 5, 5, 5)
            buffer[..., :4] = product
            return buffer.view(1, -1)

    graph = trace(Odd(), (1, 3, 5, 5))
    (product,) = (step for step in graph.steps if step.macs)
    copy = graph.steps[-1]
    assert (product.kind, product.weight, product.units, product.macs) == ("linear", 12, 4, 300)
    assert set(product.parameters) == {"weight", "scale"}
    assert copy.kind == "other"
    assert graph.values[graph.outputs[0]].elements == 125  # the whole buffer, not what is written
    cost = count(graph)
    assert (cost.by_counting["module"], cost.by_counting["stored"]) == (12, 15)


def test_what_a_dataclass_holds_is_an_output() -> None:
    @dataclass
    class Raw:
        boxes: Tensor
        size: tuple[int, int]

    class Detector(nn.Module):
        def forward(self, x: Tensor) -> Raw:
            return Raw(x + 1, (4, 4))

    graph = trace(Detector(), (1, 3, 4, 4))
    assert len(graph.outputs) == 1


def test_attention_is_two_products() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]

    cost = count(trace(Attention(), (1, 10, 8)))
    assert cost.macs == 10 * (8 * 24 + 8 * 8) + 2 * 10 * 10 * 8
    assert torch.backends.mha.get_fastpath_enabled()
