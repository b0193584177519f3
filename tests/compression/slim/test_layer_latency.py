"""Each layer of a real graph is timed, in float and quantised."""

from __future__ import annotations

from pathlib import Path

import pytest

from squeezedet.compression.slim import REST, Table, layer_latency_ms
from squeezedet.errors import ModelError
from squeezedet.exporting.int8 import quantize
from squeezedet.runtime import bundle

from ...conftest import SLIM

SIZE = (320, 192)


@pytest.mark.slow
def test_every_layer_is_timed_in_float_and_in_int8() -> None:
    model = bundle.read(SLIM)
    quantised = quantize(model, [Path(bundle.WEIGHTS / "demo.jpg")] * 16)
    for graph in (model.graph, quantised.graph):
        found = layer_latency_ms(graph, SIZE, rounds=3, threads=1)
        names = {name.removeprefix("backbone.") for name in found}
        fires = {f"fire{i}.{part}" for i in range(2, 12) for part in ("squeeze1x1", "expand3x3")}
        assert names >= fires | {"conv1", "convdet", REST}
        assert all(ms > 0 for ms in found.values())


def test_a_graph_that_cannot_run() -> None:
    with pytest.raises(ModelError, match="the layers cannot be timed"):
        layer_latency_ms(b"no graph", SIZE)


def test_a_guess_lies_between_the_measured_widths() -> None:
    table = Table({"a": (10.0, 20.0)}, {"a": (1.0, 3.0)})
    assert [table.predicted_ms("a", work) for work in (0, 5, 10, 15, 20)] == [0, 0.5, 1, 2, 3]
