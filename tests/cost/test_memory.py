from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.cost.layers import MIB, MemoryPlan, memory_of
from squeezedet.models import registry
from squeezedet.models.profile import trace


def planned(module: nn.Module, channels: int) -> MemoryPlan:
    """On an input of 10x10: a channel has 400 bytes."""
    return memory_of(trace(module, (1, channels, 10, 10)))


def test_a_chain_by_hand() -> None:
    convs = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 1), nn.Conv2d(4, 1, 1)
    memory = planned(nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.Sigmoid(), convs[2]), 1)
    seen = [(m.name, m.reads, m.writes, m.kept) for m in memory.moments]
    assert seen == [("0", 400, 800, 0), ("2", 800, 1600, 0), ("4", 1600, 400, 0)]
    assert (memory.peak.live, memory.peak.name) == (2400, "2")
    assert (memory.largest_pair.pair, memory.largest_pair.name) == (2400, "2")


def test_a_branch_is_kept_until_it_is_read() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.side = nn.Conv2d(1, 5, 1)
            self.wide, self.narrow = nn.Conv2d(1, 10, 1), nn.Conv2d(10, 1, 1)
            self.last = nn.Conv2d(6, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            side = self.side(x)  # kept while the wide one runs
            joined = torch.cat([side, self.narrow(self.wide(x))], 1)
            return self.last(joined)  # type: ignore[no-any-return]

    memory = planned(Branches(), 1)
    assert [m.name for m in memory.moments] == ["side", "wide", "narrow", "last"]
    assert [m.live for m in memory.moments] == [2400, 6400, 6400, 2800]


def test_what_an_engine_does_not_copy() -> None:
    class Residual(nn.Module):
        def __init__(self, plain: bool) -> None:
            super().__init__()
            self.stem, self.conv, self.plain = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1), plain

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.conv(x)
            return y if self.plain else F.relu(x + y)

    assert [m.live for m in planned(Residual(True), 1).moments] == [1200, 1600]
    memory = planned(Residual(False), 1)  # the sum is written over y
    assert [(m.name, m.reads, m.writes) for m in memory.moments[1:]] == [("conv", 800, 800), ("add", 1600, 0)]


def test_an_input_and_a_value_in_two_concatenations_are_copied() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 1, 1), nn.Conv2d(2, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = self.one(x)
            both = torch.cat([x, a], 1)
            return torch.cat([F.relu(both), self.two(both), a], 1)

    moments = {m.name: m for m in planned(Dense(), 1).moments}
    assert moments["concat"].writes == 400  # x; a is where it belongs
    assert moments["concat_2"].writes == 400  # a, a second time
    assert moments["relu"].writes == 800  # `both` is read by two as well: not in place


@pytest.mark.parametrize(
    ("name", "size", "changes", "pair"),
    [
        ("squeezenet-1.0", 227, {}, "5.62"),
        ("squeezedet", 375, {"geometry": "paper", "size": (1242, 375)}, "35.32"),
        ("resnet50-convdet", 375, {"geometry": "paper", "size": (1242, 375)}, "56.31"),
    ],
)
def test_the_pairs_of_section_3_4(name: str, size: int, changes: dict[str, Any], pair: str) -> None:
    with torch.device("meta"):
        network = registry.build(name, **changes)
    width = changes.get("size", (size, size))[0]
    memory = memory_of(trace(network, (1, 3, size, width)))
    assert f"{memory.largest_pair.pair / MIB:.2f}" == pair
    assert memory.peak.live >= memory.largest_pair.pair
