"""YOLO v1 against the paper's and darknet's numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from squeezedet.errors import ModelError
from squeezedet.models.network import Labels
from squeezedet.papers.darknet import LocallyConnected2d, load_weights, stored_parts
from squeezedet.papers.yolo_v1 import YoloV1, YoloV1Config

from .weights_file import write_weights

SMALL = YoloV1Config(classes=("car", "bus", "tram"), width=1 / 32, dropout=0)
SMALL_LOCAL = YoloV1Config(classes=("car", "bus"), head="local", width=1 / 32, dropout=0)
LOCAL = YoloV1Config(head="local")
NO_BOXES, NO_CLASSES = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
SIZE = (448, 448)


def small(config: YoloV1Config = SMALL) -> YoloV1:
    torch.manual_seed(0)
    return YoloV1(config)


# ------------------------------------------------------------------- network


@pytest.mark.parametrize(
    ("config", "floats", "mib", "outputs", "gmac"),
    [(YoloV1Config(), 271_703_550, 1036.5, 1470, 20.285), (LOCAL, 197_328_243, 752.7, 1715, 20.211)],
    ids=["fcdet", "local"],
)
def test_counts(config: YoloV1Config, floats: int, mib: float, outputs: int, gmac: float) -> None:
    """The file's floats, where batch norm counts four vectors; nothing is allocated."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = YoloV1(config).eval()
        assert network(torch.zeros(2, 3, 448, 448, dtype=torch.uint8)).shape == (2, outputs)
    parts = {part.name: part.tensor.numel() for part in stored_parts(network)}
    assert sum(parts.values()) == floats
    assert floats * 4 / 2**20 == pytest.approx(mib, abs=0.05)
    backbone = sum(count for name, count in parts.items() if " backbone." in name)
    vectors = 4 if config.head == "local" else 1
    assert backbone == 60_142_784 + vectors * 13_184
    assert sum(name.startswith("weights") for name in parts) == 24 + 2
    assert counter.get_total_flops() / 2 / 2e9 == pytest.approx(gmac, abs=5e-4)


def test_local_has_the_length_of_the_published_file() -> None:
    """yolov1.weights has 789,312,988 bytes, header 0.1 included."""
    with torch.device("meta"):
        parts = stored_parts(YoloV1(LOCAL))
    assert 16 + 4 * sum(part.tensor.numel() for part in parts) == 789_312_988


def test_fcdet_has_the_papers_212_million() -> None:
    with torch.device("meta"):
        network = YoloV1()
    head = sum(p.numel() for m in (network.hidden, network.output) for p in m.parameters())
    assert head == 205_524_992 + 6_022_590


@pytest.mark.parametrize("size", [(416, 416), (448, 447)])
def test_another_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="takes 448x448"), torch.device("meta"):
        YoloV1(SMALL)(torch.zeros(1, 3, *size))


@torch.inference_mode()
def test_local_layer_with_equal_weights_is_a_convolution() -> None:
    torch.manual_seed(0)
    layer, conv = LocallyConnected2d(4, 5, 3, (6, 7)), nn.Conv2d(4, 5, 3, padding=1)
    layer.weight.copy_(conv.weight.flatten(1).expand_as(layer.weight))
    layer.bias.copy_(conv.bias[:, None].expand_as(layer.bias))
    x = torch.randn(2, 4, 7, 6)
    assert torch.allclose(layer(x), conv(x), atol=1e-5)


@torch.inference_mode()
def test_local_layer_has_weights_of_its_own_in_each_cell() -> None:
    layer = LocallyConnected2d(1, 1, 3, (2, 2))
    layer.bias.zero_()
    layer.weight.copy_(torch.arange(4.0).view(4, 1, 1).expand_as(layer.weight))
    assert layer(torch.ones(1, 1, 2, 2)).flatten().tolist() == [0, 4, 8, 12]


# --------------------------------------------------------------- targets, loss


def planted(network: YoloV1, boxes: Tensor, classes: Tensor) -> Tensor:
    """The answers that say exactly these objects, with the last box of each cell."""
    targets = network.targets(Labels([boxes], [classes], [NO_BOXES], SIZE))
    raw = torch.zeros(1, network.output.out_features)
    scores, confidence, coordinates = network.split(raw)  # views of raw
    for cell in targets.present[0].nonzero()[:, 0].tolist():
        box = targets.box[0, cell]
        scores[0, cell, targets.class_id[0, cell]] = 1
        confidence[0, cell, -1] = 1
        coordinates[0, cell, -1] = torch.cat([box[:2], box[2:].sqrt()])
    return raw


side = st.floats(1, 200)


@given(x=st.floats(0, 440), y=st.floats(0, 440), w=side, h=side, class_id=st.integers(0, 2))
def test_a_planted_object_comes_back(x: float, y: float, w: float, h: float, class_id: int) -> None:
    with torch.device("meta"):
        network = YoloV1(SMALL)
    box = torch.tensor([[x, y, min(x + w, 448), min(y + h, 448)]])
    raw = planted(network, box, torch.tensor([class_id]))
    boxes, scores, classes = network.decode(raw)
    assert boxes.shape == (1, 98, 4)
    assert scores.max() == 1
    assert (scores > 0).sum() == 1
    best = int(scores.argmax())
    assert torch.allclose(boxes[0, best], box[0], atol=1e-3)
    assert classes[0, best] == class_id
    targets = network.targets(Labels([box], [torch.tensor([class_id])], [NO_BOXES], SIZE))
    terms = network.loss(raw, targets)
    assert float(sum(terms.values())) == pytest.approx(0, abs=1e-5)


def test_boxes_are_inside_and_scores_from_0_to_1() -> None:
    network = small()
    boxes, scores, classes = network.decode(torch.randn(2, network.output.out_features) * 3)
    assert boxes.min() >= 0
    assert boxes.max() <= 448
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert classes.shape == (2, 98)
    assert classes.dtype == torch.int64


def test_loss_by_hand() -> None:
    """One object in cell (2, 1) of 32x128 pixels, one box nearer to it than the other."""
    network = small()
    box = torch.tensor([[144.0, 32, 176, 160]])  # centre (160, 96): offset (0.5, 0.5) in the cell
    raw = torch.zeros(2, network.output.out_features)
    scores, confidence, coordinates = network.split(raw)
    cell = 1 * 7 + 2
    scores[0, cell] = torch.tensor([0.5, 0, 0])
    confidence[0, cell] = torch.tensor([0.25, 0.5])
    confidence[1, 0, 0] = 2
    side = (32 / 448) ** 0.5
    coordinates[0, cell, 1] = torch.tensor([0.5, 0.5, side, side])  # IoU 0.25
    targets = network.targets(Labels([box, NO_BOXES], [torch.tensor([1]), NO_CLASSES], [NO_BOXES, NO_BOXES], SIZE))
    terms = network.loss(raw, targets)
    assert float(terms["class"]) == pytest.approx((0.5**2 + 1) / 2)
    assert float(terms["object"]) == pytest.approx((0.5 - 0.25) ** 2 / 2)
    assert float(terms["background"]) == pytest.approx(0.5 * (0.25**2 + 2**2) / 2)
    assert float(terms["box"]) == pytest.approx(5 * (2 * side - side) ** 2 / 2)


def test_where_no_box_overlaps_the_nearest_is_responsible() -> None:
    network = small()
    box = torch.tensor([[0.0, 0, 64, 64]])
    raw = torch.zeros(1, network.output.out_features)
    _, confidence, coordinates = network.split(raw)
    confidence[0, 0] = torch.tensor([0.0, 1.0])
    coordinates[0, 0, 0, :2] = 6  # no box has a size, so none overlaps; the second is nearer
    targets = network.targets(Labels([box], [torch.tensor([0])], [NO_BOXES], SIZE))
    assert float(network.loss(raw, targets)["object"]) == 1


def test_first_object_keeps_its_cell() -> None:
    boxes = torch.tensor([[0.0, 0, 64, 64], [10, 10, 60, 60], [400, 400, 448, 448]])
    targets = small().targets(Labels([boxes], [torch.tensor([2, 1, 0])], [NO_BOXES], SIZE))
    assert targets.present[0].nonzero()[:, 0].tolist() == [0, 48]
    assert targets.class_id[0, 0] == 2


def test_regions_have_no_background_loss() -> None:
    network = small()
    box, region = torch.tensor([[0.0, 0, 64, 64]]), torch.tensor([[0.0, 0, 128, 64]])
    targets = network.targets(Labels([box], [torch.tensor([0])], [region], SIZE))
    assert targets.ignored[0].nonzero()[:, 0].tolist() == [1]  # cell 0 has an object
    raw = torch.ones(1, network.output.out_features)
    free = network.targets(Labels([box], [torch.tensor([0])], [NO_BOXES], SIZE))
    less = network.loss(raw, free)["background"] - network.loss(raw, targets)["background"]
    assert float(less) == pytest.approx(0.5 * 2)


@pytest.mark.slow
@pytest.mark.parametrize("config", [YoloV1Config(), LOCAL], ids=["fcdet", "local"])
def test_the_whole_network_trains_a_step(config: YoloV1Config) -> None:
    """A gigabyte of weights, and as much of gradients."""
    network = small(replace(config, dropout=0))
    images = torch.randint(0, 256, (2, 3, 448, 448), dtype=torch.uint8)
    box = torch.tensor([[100.0, 100, 300, 200]])
    targets = network.targets(Labels([box] * 2, [torch.tensor([3])] * 2, [NO_BOXES] * 2, SIZE))
    before = sum(network.loss(network(images), targets).values())
    before.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in network.parameters()])
    torch.optim.SGD(network.parameters(), lr=0.01 / norm.item()).step()
    network.zero_grad()
    with torch.no_grad():
        after = sum(network.loss(network(images), targets).values())
    assert torch.isfinite(before)
    assert after < before


# ------------------------------------------------------------- files


def test_a_file_of_the_other_head_names_the_layer(tmp_path: Path) -> None:
    write_weights(tmp_path / "yolo.weights", small())
    with pytest.raises(ModelError, match=r"too (short|long): .*(hidden|output)"):
        load_weights(small(SMALL_LOCAL), tmp_path / "yolo.weights")
