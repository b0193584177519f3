"""Tiny YOLO v2 against darknet's numbers."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from squeezedet.errors import ModelError
from squeezedet.models.network import Labels
from squeezedet.papers.darknet import load_weights, stored_parts
from squeezedet.papers.tiny_yolo_v2 import ANCHORS_VOC, PoolSameSize, TinyYoloV2, TinyYoloV2Config

from .weights_file import write_weights

SIZE = (224, 160)
SMALL = TinyYoloV2Config(classes=("car", "bus", "tram"), size=SIZE, width=1 / 8)
GRID = (7, 5)
NO_BOXES, NO_CLASSES = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


def small() -> TinyYoloV2:
    torch.manual_seed(0)
    return TinyYoloV2(SMALL)


def random_map(n: int = 1, scale: float = 1.0) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(n, 5 * 8, GRID[1], GRID[0]) * scale


# ------------------------------------------------------------------- network


def test_counts() -> None:
    """15,867,885 floats in the file, four vectors for each batch norm: 60.53 MiB."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = TinyYoloV2().eval()
        assert network(torch.zeros(2, 3, 416, 416, dtype=torch.uint8)).shape == (2, 125, 13, 13)
    floats = sum(part.tensor.numel() for part in stored_parts(network))
    assert floats == 15_867_885
    assert floats * 4 / 2**20 == pytest.approx(60.53, abs=0.005)
    assert 16 + 4 * floats == 63_471_556  # the published file, header 0.1 included
    assert sum(p.numel() for p in network.parameters()) == 15_867_885 - 2 * 3_056
    assert counter.get_total_flops() / 2 / 2e9 == pytest.approx(3.486, abs=1e-3)


def test_sides_are_multiples_of_32() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        TinyYoloV2Config(size=(416, 400))
    with pytest.raises(ValueError, match="takes 224x160"):
        small()(torch.zeros(1, 3, 224, 160))


def test_last_pool_keeps_the_size() -> None:
    """Darknet's window of cell i is i and i + 1, and outside the map is nothing."""
    x = torch.tensor([[1.0, 2, -3], [0, -5, -4], [-9, -7, -8]])[None, None]
    assert PoolSameSize()(x)[0, 0].tolist() == [[2, 2, -3], [0, -4, -4], [-7, -7, -8]]


# --------------------------------------------------------------- targets, loss


def assigned(network: TinyYoloV2, box: Tensor, class_id: int = 0) -> int:
    targets = network.targets(Labels([box], [torch.tensor([class_id])], [NO_BOXES], SIZE))
    (anchor,) = targets.positive[0].nonzero()[:, 0].tolist()
    assert targets.class_id[0, anchor] == class_id
    assert torch.equal(targets.box[0, anchor], box[0])
    return int(anchor)


@pytest.mark.parametrize("nearest", range(5))
def test_an_object_goes_to_its_cell_and_the_nearest_shape(nearest: int) -> None:
    w, h = ANCHORS_VOC[nearest]
    centre = torch.tensor([3.5, 1.25]) * 32
    half = torch.tensor([w, h]) * 16
    box = torch.cat([centre - half, centre + half])[None]
    assert assigned(small(), box) == (1 * GRID[0] + 3) * 5 + nearest


side = st.floats(2, 200)


@given(x=st.floats(0, 220), y=st.floats(0, 150), w=side, h=side, class_id=st.integers(0, 2))
def test_a_planted_object_comes_back(x: float, y: float, w: float, h: float, class_id: int) -> None:
    with torch.device("meta"):
        network = TinyYoloV2(SMALL)
    network.shapes = torch.tensor(ANCHORS_VOC)
    box = torch.tensor([[x, y, min(x + w, 224), min(y + h, 160)]])
    anchor = assigned(network, box, class_id)
    cell, k = divmod(anchor, 5)
    row, column = divmod(cell, GRID[0])
    raw = torch.zeros(1, 5 * 8, GRID[1], GRID[0])
    raw[:, 4::8] = -20
    entries = raw[0, k * 8 : (k + 1) * 8, row, column]  # a view
    centre, size = (box[0, :2] + box[0, 2:]) / 64, (box[0, 2:] - box[0, :2]) / 32
    offset = (centre - torch.tensor([column, row])).clamp(1e-6, 1 - 1e-6)
    entries[:2] = torch.logit(offset)
    entries[2:4] = (size / torch.tensor(ANCHORS_VOC[k])).log()
    entries[4], entries[5 + class_id] = 20, 20
    boxes, scores, classes = network.decode(raw)
    assert scores.shape == (1, 175)
    assert int(scores.argmax()) == anchor
    assert scores.max() > 0.999
    assert torch.allclose(boxes[0, anchor], box[0], atol=1e-2)
    assert classes[0, anchor] == class_id
    targets = network.targets(Labels([box], [torch.tensor([class_id])], [NO_BOXES], SIZE))
    assert float(sum(network.loss(raw, targets).values())) == pytest.approx(0, abs=1e-3)


def test_boxes_are_inside_and_scores_from_0_to_1() -> None:
    boxes, scores, _ = small().decode(random_map(2, scale=100))
    assert torch.isfinite(boxes).all()
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([224, 160, 224, 160])).all()
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_gradients_are_those_of_the_region_layer() -> None:
    """scale * (output - truth), through the sigmoid for x, y and objectness."""
    network, raw = small(), random_map().requires_grad_()
    box = torch.tensor([[100.0, 40, 130, 70]])
    anchor = assigned(network, box, 2)
    targets = network.targets(Labels([box], [torch.tensor([2])], [NO_BOXES], SIZE))
    sum(network.loss(raw, targets).values()).backward()
    gradient = torch.cat([part.reshape(1, 175, -1) for part in network.split(raw.grad)], 2)[0]
    deltas, objectness, logits = (part[0].detach() for part in network.split(raw))

    x, w = deltas[anchor, 0].sigmoid(), deltas[anchor, 2]
    column, shape = (anchor // 5) % 7, ANCHORS_VOC[anchor % 5]
    assert gradient[anchor, 0] == pytest.approx(float((x - (115 / 32 - column)) * x * (1 - x)), rel=1e-4)
    assert gradient[anchor, 2] == pytest.approx(float(w - math.log(30 / 32 / shape[0])), rel=1e-4)
    decoded = network.boxes(deltas)[anchor]
    shared = (torch.minimum(decoded[2:], box[0, 2:]) - torch.maximum(decoded[:2], box[0, :2])).clamp(min=0)
    area = (decoded[2:] - decoded[:2]).prod() + 900 - shared.prod()
    p = objectness[anchor].sigmoid()
    assert gradient[anchor, 4] == pytest.approx(float(5 * (p - shared.prod() / area) * p * (1 - p)), rel=1e-4)
    wanted = torch.tensor([0.0, 0, 1])
    assert torch.allclose(gradient[anchor, 5:], logits[anchor].softmax(0) - wanted, atol=1e-6)

    other = 0
    p = objectness[other].sigmoid()
    assert gradient[other, 4] == pytest.approx(float(p * p * (1 - p)), rel=1e-4)
    assert not gradient[other, [0, 1, 2, 3, 5, 6, 7]].any()


def test_a_box_near_an_object_is_no_background() -> None:
    network = small()
    box = torch.tensor([[64.0, 64, 128, 96]])  # its centre is the left edge of cell (3, 2)
    raw = torch.zeros(1, 40, GRID[1], GRID[0])
    entries = raw[0, :4, 2, 2]  # the first anchor of the cell to the left says the same box
    entries[0] = 20
    entries[2:] = (torch.tensor([2.0, 1.0]) / torch.tensor(ANCHORS_VOC[0])).log()
    raw.requires_grad_()
    targets = network.targets(Labels([box], [torch.tensor([0])], [NO_BOXES], SIZE))
    network.loss(raw, targets)["background"].backward()
    gradient = network.split(raw.grad)[1][0]
    near, mine = (2 * GRID[0] + 2) * 5, assigned(network, box)
    assert near != mine
    assert (gradient == 0).nonzero()[:, 0].tolist() == [near, mine]


def test_regions_have_no_background_loss() -> None:
    network = small()
    box, region = torch.tensor([[0.0, 0, 32, 32]]), torch.tensor([[0.0, 0, 64, 32]])
    targets = network.targets(Labels([box], [torch.tensor([0])], [region], SIZE))
    anchor = assigned(network, box)
    assert targets.ignored[0].nonzero()[:, 0].tolist() == [a for a in range(10) if a != anchor]
    raw = torch.zeros(1, 40, GRID[1], GRID[0])
    free = network.targets(Labels([box], [torch.tensor([0])], [NO_BOXES], SIZE))
    less = network.loss(raw, free)["background"] - network.loss(raw, targets)["background"]
    assert float(less) == pytest.approx(9 * 0.25 / 2)


def test_targets_of_a_batch_fill_up_with_empty_boxes() -> None:
    boxes = [torch.tensor([[0.0, 0, 64, 64], [100, 100, 120, 120]]), NO_BOXES]
    targets = small().targets(Labels(boxes, [torch.tensor([0, 1]), NO_CLASSES], [NO_BOXES] * 2, SIZE))
    assert targets.every.shape == (2, 2, 4)
    assert not targets.every[1].any()
    moved = targets.to("meta")
    assert all(getattr(moved, f.name).is_meta for f in fields(moved))


# ------------------------------------------------------------- files


def test_a_file_of_other_classes_is_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "tiny.weights", small())
    other = TinyYoloV2(TinyYoloV2Config(classes=("car",), size=SIZE, width=1 / 8))
    with pytest.raises(ModelError, match=r"too long: .* after weights of output"):
        load_weights(other, tmp_path / "tiny.weights")
