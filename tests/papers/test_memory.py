from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from squeezedet.cost.graph import Graph, Step, Value
from squeezedet.cost.layers import MIB
from squeezedet.cost.trace import trace
from squeezedet.models import registry
from squeezedet.papers.memory_plan import MemoryPlan, plan


def planned(module: nn.Module, channels: int) -> MemoryPlan:
    """On an input of 10x10: a channel has 400 bytes."""
    return plan(trace(module, (1, channels, 10, 10)))


def test_a_chain_by_hand() -> None:
    convs = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 1), nn.Conv2d(4, 1, 1)
    memory = planned(nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.Sigmoid(), convs[2]), 1)
    assert memory.exact
    seen = [(m.name, m.reads, m.writes, m.kept) for m in memory.moments]
    assert seen == [("0", 400, 800, 0), ("2", 800, 1600, 0), ("4", 1600, 400, 0)]
    assert (memory.peak.live, memory.peak.name) == (2400, "2")
    assert (memory.largest_pair.pair, memory.largest_pair.name) == (2400, "2")


def test_the_order_of_branches_matters() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.side = nn.Conv2d(1, 5, 1)
            self.wide, self.narrow = nn.Conv2d(1, 10, 1), nn.Conv2d(10, 1, 1)
            self.last = nn.Conv2d(6, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            side = self.side(x)  # first here, but it would be kept while the wide one runs
            joined = torch.cat([side, self.narrow(self.wide(x))], 1)
            return self.last(joined)  # type: ignore[no-any-return]

    memory = planned(Branches(), 1)
    assert [m.name for m in memory.moments] == ["wide", "narrow", "side", "last"]
    assert [m.live for m in memory.moments] == [4400, 4800, 2800, 2800]
    assert memory.exact
    unsearched = plan(trace(Branches(), (1, 1, 10, 10)), moves=0)
    assert unsearched.peak.live == 6400 and not unsearched.exact


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
    assert [(m.name, m.reads, m.writes) for m in memory.moments[1:]] == [
        ("conv", 800, 800),
        ("add", 1600, 0),
    ]


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
    memory = plan(trace(network, (1, 3, size, width)))
    assert f"{memory.largest_pair.pair / MIB:.2f}" == pair
    assert memory.exact and memory.peak.live >= memory.largest_pair.pair


# ------------------------------------------------- the search against all orders


@st.composite
def graphs(draw: Any) -> Graph:
    """Up to six operations, each reading some of the values before it."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=2, max_size=7))
    steps = []
    for made in range(1, len(sizes)):
        reads = draw(st.sets(st.integers(0, made - 1), min_size=1, max_size=3))
        steps.append(
            Step(
                name=f"{made}",
                kind="other",
                operation="op",
                reads=tuple(sorted(reads)),
                writes=(made,),
            )
        )
    outputs = draw(st.sets(st.integers(1, len(sizes) - 1), min_size=1, max_size=2))
    values = tuple(Value((1, size), size) for size in sizes)
    return Graph(values, tuple(steps), (0,), tuple(sorted(outputs)), {})


def lowest_peak(graph: Graph) -> int:
    """By trying every order."""
    best = sum(value.size_bytes for value in graph.values) + 1
    for order in permutations(graph.steps):
        there, peak = set(graph.inputs), 0
        made = set(graph.inputs)
        for k, step in enumerate(order):
            if not made >= set(step.reads):
                break
            made.update(step.writes)
            there.update(step.writes)
            peak = max(peak, sum(graph.values[v].size_bytes for v in there))
            wanted = {v for later in order[k + 1 :] for v in later.reads} | set(graph.outputs)
            there &= wanted
        else:
            best = min(best, peak)
    return best


@given(graphs())
def test_no_order_has_a_smaller_peak(graph: Graph) -> None:
    memory = plan(graph)
    assert memory.exact
    assert memory.peak.live == max(lowest_peak(graph), graph.values[0].size_bytes)
    assert sorted(m.name for m in memory.moments) == sorted(step.name for step in graph.steps)
    bounded = plan(graph, moves=0)
    assert bounded.peak.live >= memory.peak.live
    assert not bounded.exact or bounded.peak.live == memory.peak.live


@pytest.mark.parametrize("parts", [2, 40])
def test_many_branches_are_searched_within_bounds(parts: int) -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList(nn.Conv2d(2, 1 + k % 3, 1) for k in range(parts))

        def forward(self, x: Tensor) -> list[Tensor]:
            return [head(x) for head in self.heads]

    memory = planned(Heads(), 2)
    everything = 800 + 400 * sum(1 + k % 3 for k in range(parts))
    assert memory.exact and memory.peak.live == everything  # all outputs stay, in any order
