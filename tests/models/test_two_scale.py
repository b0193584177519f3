"""The second ConvDet: two grids, one assignment, one loss, one exported graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from squeezedet.data.sample import KITTI_DEFAULT
from squeezedet.exporting.bundle import bundle_detector
from squeezedet.models.network import Labels
from squeezedet.models.two_scale import TwoScale, TwoScaleConfig
from squeezedet.runtime import bundle
from squeezedet.training import checkpoint
from squeezedet.training.checkpoint import initialize, load_detector
from squeezedet.training.train import Plan

SIZE = (96, 64)  # a coarse grid of 6 x 4, a fine one of 12 x 8
SMALL = TwoScaleConfig(widths=(8, 4, 4, 4, 4, 4, 4, 4, 8, 8, 4, 8, 8, *(4, 8, 8) * 6), lateral=8, mix=8, size=SIZE)
ANCHORS = 8 * 12 * 4 + 4 * 6 * 6


@pytest.fixture
def network() -> TwoScale:
    made = initialize("two-scale", SMALL).detector
    assert isinstance(made, TwoScale)
    return made.eval()


def images(n: int = 1) -> torch.Tensor:
    shape = (n, SIZE[1], SIZE[0], 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def labels(boxes: torch.Tensor) -> Labels:
    """A pedestrian and a car, or nothing, in one image."""
    classes = torch.tensor([1, 0])[: len(boxes)]
    return Labels([boxes], [classes], [torch.zeros(0, 4)], SIZE)


def test_two_maps_of_both_strides(network: TwoScale) -> None:
    fine, coarse = network(images(2))
    assert fine.shape == (2, 4 * 8, 8, 12)
    assert coarse.shape == (2, 6 * 8, 4, 6)
    assert network.planes((fine, coarse)).shape == (2, 8, ANCHORS)


def test_sides_of_other_sizes_are_refused(network: TwoScale) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        network(images()[..., :40])


def test_an_anchor_is_where_its_numbers_are(network: TwoScale) -> None:
    """Deltas of zero give the anchors, and a mark in a map comes out at its anchor's place."""
    fine, coarse = torch.zeros(1, 32, 8, 12), torch.zeros(1, 48, 4, 6)
    fine[0, 2 * 8 + 3, 5, 7] = 4.0  # the confidence of the third fine anchor
    fine[0, 2 * 8 + 1, 5, 7] = 9.0  # a pedestrian
    coarse[0, 1 * 8 + 3, 1, 2] = 3.0
    coarse[0, 1 * 8 + 2, 1, 2] = 9.0  # a cyclist
    boxes, score, class_id = network.decode((fine, coarse))
    first, second = score[0].argsort(descending=True)[:2].tolist()
    assert (class_id[0, first], class_id[0, second]) == (1, 2)
    assert class_id.dtype == torch.int64
    for index, (x, y), (w, h) in (
        (first, (7.5 * 8, 5.5 * 8), SMALL.fine_anchors[2]),
        (second, (2.5 * 16, 1.5 * 16), SMALL.anchors[1]),
    ):
        wanted = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        assert boxes[0, index].tolist() == wanted.clip(0, np.array([*SIZE, *SIZE])).tolist()


def test_the_score_is_confidence_times_softmax(network: TwoScale) -> None:
    raw = (torch.randn(2, 32, 8, 12), torch.randn(2, 48, 4, 6))
    planes = network.planes(raw)
    probability, class_id = planes[:, :3].softmax(1).max(1)
    _, score, found = network.decode(raw)
    assert torch.allclose(score, probability * planes[:, 3].sigmoid(), atol=1e-6)
    assert torch.equal(found, class_id)


def test_small_objects_go_to_the_fine_grid(network: TwoScale) -> None:
    boxes = torch.tensor([[40.0, 20.0, 52.0, 56.0], [2.0, 2.0, 90.0, 54.0]])
    targets = network.targets(labels(boxes))
    fine = targets.positive[0, : 8 * 12 * 4]
    assert targets.class_id[0, : 8 * 12 * 4][fine].unique().tolist() == [1]
    coarse = targets.positive[0, 8 * 12 * 4 :]
    assert targets.class_id[0, 8 * 12 * 4 :][coarse].unique().tolist() == [0]


def test_targets_decode_to_their_objects(network: TwoScale) -> None:
    boxes = torch.tensor([[40.0, 20.0, 52.0, 56.0], [2.0, 2.0, 90.0, 54.0]])
    targets = network.targets(labels(boxes))
    decoded = network.boxes(targets.deltas.transpose(1, 2), (6, 4))
    assert torch.allclose(decoded[targets.positive], targets.boxes[targets.positive], atol=1e-3)


def test_a_batch_without_objects_has_a_gradient(network: TwoScale) -> None:
    targets = network.targets(labels(torch.zeros(0, 4)))
    total = torch.stack(list(network.loss(network(images()), targets).values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert network.fine.weight.grad is not None


def test_it_learns_one_image(network: TwoScale) -> None:
    boxes = torch.tensor([[40.0, 20.0, 52.0, 56.0], [2.0, 2.0, 60.0, 40.0]])
    targets = network.targets(labels(boxes))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        torch.stack(list(network.loss(network(images()), targets).values())).sum().backward()
        optimizer.step()
    found, score, class_id = (x[0] for x in network.decode(network(images())))
    for box, wanted in zip(boxes, (1, 0), strict=True):
        best = torch.where(class_id == wanted, score, -1).argmax()
        assert score[best] > 0.5
        assert (found[best] - box).abs().max() < 4


@pytest.mark.slow
def test_a_bundle_starts_a_run_again(network: TwoScale, tmp_path: Path) -> None:
    path = tmp_path / "two.bundle"
    made = bundle_detector(network, "two", training={"config": checkpoint.describe(network), "steps": 1})
    bundle.write(path, made)
    again = load_detector(str(path))
    assert again.config == SMALL
    for name, value in network.state_dict().items():
        assert torch.allclose(again.state_dict()[name], value, atol=2e-3, rtol=2e-3), name
    class_map = KITTI_DEFAULT
    planned = Plan.create("squeezedet-two-scale", class_map, [], init=str(path))
    assert planned.start is not None
    assert planned.start.random == ()
    assert planned.detector.config.widths == SMALL.widths


@pytest.mark.slow
def test_int8_reaches_both_heads(network: TwoScale) -> None:
    onnx = pytest.importorskip("onnx")
    from squeezedet.exporting.bundle import export
    from squeezedet.exporting.int8 import find_region, prepare

    region = find_region(prepare(export(network, SIZE)).graph)
    assert set(region.heads.values()) == {"fine", "convdet"}
    assert not region.float_layers
    assert sum(name.startswith("Resize") for name in region.nodes) == 1
    assert onnx is not None
