"""What computes in int8, and what shares a scale."""

from __future__ import annotations

from typing import Any

import pytest

from squeezedet.errors import ModelError, UsageError
from squeezedet.exporting.calibration import find_region, prepare
from squeezedet.runtime.bundle import Bundle


@pytest.fixture(scope="module")
def graph(small: Bundle) -> Any:
    return prepare(small.graph).graph


def kinds(graph: Any, names: frozenset[str]) -> list[str]:
    return [node.op_type for node in graph.node if node.name in names]


def test_everything_up_to_the_head_and_nothing_behind_it(graph: Any) -> None:
    region = find_region(graph)
    found = kinds(graph, region.nodes)
    assert sorted(set(found)) == ["Concat", "Conv", "MaxPool", "Relu"]
    assert found.count("Conv") == 5
    assert found[-1] == "Conv"
    assert region.heads == {"head.out": "head"}
    assert region.images == {"pixels"}
    assert "pixels" not in region.scale_of


def test_what_copies_numbers_shares_a_scale(graph: Any) -> None:
    scale = find_region(graph).scale_of
    joined = {scale[n] for n in ("fire.expand1.out", "fire.expand3.out", "relu3", "pool2")}
    assert len(joined) == 1
    assert scale["conv1.out"] == scale["relu1"] == scale["pool"]
    assert len({scale["pool"], scale["relu2"], scale["pool2"], scale["head.out"]}) == 4


def test_only_what_holds_all_numbers_is_measured(graph: Any) -> None:
    assert set(find_region(graph).measured) == {"pool", "relu2", "pool2", "head.out"}


def test_a_layer_left_out_takes_what_depends_on_it_along(graph: Any) -> None:
    region = find_region(graph, ["fire.expand1"])
    assert region.float_layers == ("fire.expand1",)
    assert "Concat" not in kinds(graph, region.nodes)
    assert kinds(graph, region.nodes).count("Conv") == 4
    assert region.heads == {"head.out": "head"}


def test_wildcards(graph: Any) -> None:
    assert find_region(graph, ["fire.*"]).layers == ("conv1", "head")


def test_unknown_layer_says_which_is_meant(graph: Any) -> None:
    with pytest.raises(UsageError, match=r"no layer 'fire.expand4' \(did you mean 'fire.expand"):
        find_region(graph, ["fire.expand4"])


def test_nothing_left(graph: Any) -> None:
    with pytest.raises(ModelError, match="no convolution is left"):
        find_region(graph, ["*"])
