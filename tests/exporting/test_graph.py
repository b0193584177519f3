"""Changes to a graph: NMS inside gives what the runtime chooses; a fixed size is the only one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from squeezedet.errors import MissingExtraError, ModelError, UsageError
from squeezedet.exporting import graph as export_graph
from squeezedet.preprocess import InputRule, resize
from squeezedet.runtime import bundle, parity
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines import OnnxRuntimeEngine
from squeezedet.runtime.postprocess import RawBoxes, Selection, select

from ..conftest import SLIM

SIZE = (624, 192)


@pytest.fixture(scope="module")
def model() -> Bundle:
    return bundle.read(SLIM)


@pytest.fixture(scope="module")
def every(model: Bundle) -> RawBoxes:
    return OnnxRuntimeEngine(model.graph, 1).run(resize(parity.sample_frame().pixels, SIZE))


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(score=0.05),
        Selection(score=0.0, candidates=100, top_n=7),
        Selection(score=0.0, candidates=600, top_n=600, nms_iou=0.8),
        Selection(score=1.0),
    ],
)
def test_nms_in_the_graph(model: Bundle, every: RawBoxes, selection: Selection) -> None:
    chosen = export_graph.with_nms(replace(model, card=replace(model.card, selection=selection)))
    pixels = resize(parity.sample_frame().pixels, SIZE)
    found = OnnxRuntimeEngine(chosen.graph, 1).run(pixels)
    wanted = select(every, selection)
    assert len(found.score) == len(wanted.score)
    np.testing.assert_allclose(found.score, wanted.score, rtol=1e-6)
    # Equal scores may stand in another order.
    order = [np.lexsort((*raw.xyxy.T, raw.score)) for raw in (found, wanted)]
    np.testing.assert_allclose(found.xyxy[order[0]], wanted.xyxy[order[1]], atol=1e-3)
    assert np.array_equal(found.class_id[order[0]], wanted.class_id[order[1]])


def test_a_score_equal_to_the_threshold_counts(model: Bundle, every: RawBoxes) -> None:
    threshold = float(every.score.max())
    selection = Selection(score=threshold)
    chosen = export_graph.with_nms(replace(model, card=replace(model.card, selection=selection)))
    found = OnnxRuntimeEngine(chosen.graph, 1).run(resize(parity.sample_frame().pixels, SIZE))
    assert found.score.tolist() == [threshold]


def test_the_card_knows_of_it(model: Bundle) -> None:
    chosen = export_graph.with_nms(model)
    assert export_graph.has_nms(chosen)
    assert not export_graph.has_nms(model)
    assert chosen.card.graph_sha256 != model.card.graph_sha256
    assert chosen.card.training["config"] == model.card.training["config"]
    assert export_graph.with_nms(chosen) is chosen


def test_one_size(model: Bundle) -> None:
    small = export_graph.fix_size(model, (320, 96))
    assert small.card.input == InputRule(320, 96, fixed=True)
    assert small.card.training["export"] == {"fixed": True}
    engine = OnnxRuntimeEngine(small.graph, 1)
    assert engine.run(np.zeros((96, 320, 3), np.uint8)).xyxy.shape == (20 * 6 * 9, 4)
    with pytest.raises(ModelError, match="fails on an input of 336x96"):
        engine.run(np.zeros((96, 336, 3), np.uint8))
    (port,) = onnx.load_from_string(small.graph).graph.input
    assert [d.dim_value for d in port.type.tensor_type.shape.dim] == [1, 96, 320, 3]
    assert export_graph.fix_size(small, (320, 96)) is small
    with pytest.raises(UsageError, match="takes only 320x96"):
        export_graph.fix_size(small, (320, 112))


@pytest.mark.parametrize("size", [(321, 96), (0, 96), (-16, 96), (320, 100_000)])
def test_sizes_that_no_network_takes(model: Bundle, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="`fixed`: a side must be"):
        export_graph.fix_size(model, size)


def test_onnx_is_not_installed(model: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtraError, match="export with `nms` needs"):
        export_graph.with_nms(model)
