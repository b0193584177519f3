"""The exported graph answers as the detector does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from squeezedet.errors import ModelError
from squeezedet.exporting.bundle import _check, export, round_to_half
from squeezedet.models.squeezedet import PAPER, ConvDet, ConvDetConfig
from squeezedet.runtime.engines import OnnxRuntimeEngine


def lively(config: ConvDetConfig | None = None) -> ConvDet:
    """A detector whose weights are random and large enough to matter."""
    torch.manual_seed(0)
    detector = ConvDet.from_config(config or ConvDetConfig())
    with torch.no_grad():
        for p in detector.parameters():
            p.copy_(torch.randn_like(p) * 0.05)
    return detector.eval()


@pytest.fixture(scope="module")
def graph() -> bytes:
    return export(lively(), (64, 32))


@torch.inference_mode()
def test_folding_the_mean_changes_nothing() -> None:
    detector = lively().double()
    images = torch.randint(0, 256, (1, 3, 32, 64)).double()
    assert torch.allclose(detector.fused()(images), detector(images), atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 32), (176, 80), (16, 16)])
def test_graph_takes_other_sizes(graph: bytes, size: tuple[int, int]) -> None:
    detector = round_to_half(lively())
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    boxes, score, class_id = detector.decode(detector(torch.from_numpy(pixels).permute(2, 0, 1)[None]))
    answer = OnnxRuntimeEngine(graph, threads=1).run(pixels)
    assert np.abs(answer.xyxy - boxes[0].numpy()).max() < 0.02
    assert np.abs(answer.score - score[0].numpy()).max() < 1e-4
    assert (answer.class_id == class_id[0].numpy()).mean() > 0.99


def test_weights_are_stored_as_half(graph: bytes) -> None:
    assert len(graph) < 2.05 * 2_082_120 + 40_000


def test_graph_tells_nothing_of_the_machine(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    for word in (b"/site-packages/", b".py", b"/root", b"/home"):
        assert word not in graph


def test_parity_check_notices_another_network(graph: bytes) -> None:
    other = lively()
    with torch.no_grad():
        other.convdet.bias += 0.05
    with pytest.raises(ModelError, match="differs from the detector"):
        _check(graph, other, (64, 32))


@pytest.mark.slow
def test_the_papers_geometry_exports_too() -> None:
    graph = export(lively(PAPER), (1242, 375))
    assert OnnxRuntimeEngine(graph).run(np.zeros((375, 1242, 3), np.uint8)).xyxy.shape == (15048, 4)
