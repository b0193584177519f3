"""SSD's parts against numbers worked out by hand and against slow, plain code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from squeezedet.models.layers import MAX_LOG_SIZE, to_center, to_corners
from squeezedet.models.network import Labels
from squeezedet.models.tiny_ssd import (
    FeatureMap,
    TinySSD,
    TinySSDConfig,
    assign,
    cells,
    decode_boxes,
    default_boxes,
    encode,
    hard_negatives,
    match,
)

NO_BOXES, NO_CLASSES = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


SIZE = (96, 80)


@pytest.fixture
def toy() -> TinySSD:
    torch.manual_seed(0)
    return TinySSD(TinySSDConfig(classes=("car", "pedestrian"), size=SIZE))


@pytest.fixture
def defaults(toy: TinySSD) -> Tensor:
    return toy.default_boxes


# ------------------------------------------------------------- default boxes


def test_default_boxes_of_ssd300_on_vgg() -> None:
    cells, steps = (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300)
    sizes = (30, 60, 111, 162, 213, 264, 315)
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    corners = default_boxes(
        [
            FeatureMap(columns=n, rows=n, step=(step, step), min_size=low, max_size=high, ratios=r)
            for n, step, low, high, r in zip(cells, steps, sizes, sizes[1:], ratios, strict=False)
        ]
    )
    boxes = to_center(corners)
    assert boxes.shape == (8_732, 4)
    assert boxes[:4].numpy() == pytest.approx(
        np.array([[4, 4, 30, 30], [4, 4, 42.4264, 42.4264], [4, 4, 42.4264, 21.2132],
                  [4, 4, 21.2132, 42.4264]]), abs=1e-4
    )  # fmt: skip
    assert boxes[4, :2].tolist() == pytest.approx([12, 4])  # columns run before rows
    assert boxes[38 * 4, :2].tolist() == pytest.approx([4, 12])
    second = 38 * 38 * 4
    assert boxes[second : second + 6].numpy() == pytest.approx(
        np.array([[8, 8, 60, 60], [8, 8, 81.6088, 81.6088], [8, 8, 84.8528, 42.4264],
                  [8, 8, 42.4264, 84.8528], [8, 8, 103.9230, 34.6410],
                  [8, 8, 34.6410, 103.9230]]), abs=1e-4
    )  # fmt: skip
    assert boxes[-1].numpy() == pytest.approx(np.array([150, 150, 186.6762, 373.3524]), abs=1e-4)


coordinate = st.integers(0, 300)
side = st.integers(1, 300)


@given(st.tuples(coordinate, coordinate, side, side), st.tuples(coordinate, coordinate, side, side))
def test_decoding_undoes_encoding(box: tuple[int, ...], default: tuple[int, ...]) -> None:
    wanted = to_corners(torch.tensor(box, dtype=torch.float64))
    prior = to_corners(torch.tensor(default, dtype=torch.float64))
    grown = (torch.tensor(box[2:]) / torch.tensor(default[2:])).log().max()
    if grown < MAX_LOG_SIZE:
        assert torch.allclose(decode_boxes(encode(wanted, prior), prior), wanted, atol=1e-6)


def test_deltas_are_divided_by_their_variances() -> None:
    default = to_corners(torch.tensor([100.0, 100, 50, 20]))
    box = to_corners(torch.tensor([110.0, 98, 100, 20]))
    assert encode(box, default).tolist() == pytest.approx([2, -1, 5 * math.log(2), 0], abs=1e-5)


# ------------------------------------------------------------------- targets


def plain_match(overlaps: np.ndarray, threshold: float) -> list[int]:
    """Loops only: best pair by best pair, then the threshold."""
    count, objects = overlaps.shape
    owner = [-1] * count
    open_objects = set(range(objects))
    while open_objects:
        best, pair = 0.0, None
        for a in range(count):
            for o in sorted(open_objects):
                if owner[a] < 0 and overlaps[a, o] > best:
                    best, pair = overlaps[a, o], (a, o)
        if pair is None:
            break
        owner[pair[0]] = pair[1]
        open_objects.remove(pair[1])
    for a in range(count):
        if owner[a] < 0 and objects and overlaps[a].max() >= threshold:
            owner[a] = int(overlaps[a].argmax())
    return owner


@given(
    st.integers(0, 9).flatmap(
        lambda objects: st.lists(
            st.lists(st.integers(0, 8), min_size=objects, max_size=objects), min_size=1, max_size=12
        )
    )
)
def test_matching_is_what_plain_loops_find(eighths: list[list[int]]) -> None:
    """Overlaps in eighths: many ties, many of exactly the threshold."""
    overlaps = torch.tensor(eighths).reshape(len(eighths), -1) / 8
    assert match(overlaps).tolist() == plain_match(overlaps.numpy(), 0.5)


def test_every_object_is_learnt_also_a_small_one(defaults: Tensor) -> None:
    boxes = torch.tensor([[1.0, 1, 3, 4], [20, 10, 42, 30], [50, 40, 64, 48]])
    label, ignored, deltas = assign(defaults, boxes, torch.tensor([0, 1, 0]), NO_BOXES)
    assert not ignored.any()
    assert (label == 2).sum() >= 1
    assert (label == 1).sum() >= 2
    decoded = decode_boxes(deltas, defaults)[label > 0]
    gap = (decoded[:, None] - boxes[None]).abs().amax(-1).amin(1)
    assert gap.max() < 1e-3
    assert deltas[label == 0].abs().max() == 0


def test_regions_are_neither_object_nor_background(defaults: Tensor) -> None:
    region = torch.tensor([[24.0, 8, 64, 48]])
    label, ignored, _ = assign(defaults, NO_BOXES, NO_CLASSES, region)
    inside = (defaults >= torch.tensor([24, 8, -99, -99])) & (defaults <= torch.tensor([999, 999, 64, 48]))
    assert (label == 0).all()
    assert ignored[inside.all(1)].all()
    assert not ignored[(defaults[:, 2] < 24) | (defaults[:, 3] < 8)].any()


def test_a_region_smaller_than_every_default_box_takes_its_best_one(defaults: Tensor) -> None:
    region = torch.tensor([[19.0, 19, 21, 21]])
    _, ignored, _ = assign(defaults, NO_BOXES, NO_CLASSES, region)
    assert ignored.sum() == 1


def test_an_object_in_a_region_is_learnt(defaults: Tensor) -> None:
    box = torch.tensor([[20.0, 10, 42, 30]])
    alone, _, _ = assign(defaults, box, torch.tensor([1]), NO_BOXES)
    label, ignored, _ = assign(defaults, box, torch.tensor([1]), torch.tensor([[0.0, 0, *SIZE]]))
    assert (label == alone).all()
    assert (ignored == (label == 0)).float().mean() > 0.5
    assert not ignored[label > 0].any()


# ---------------------------------------------------------------------- loss


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("pbi")), min_size=4, max_size=24))
def test_hard_negatives_are_the_worst_three_for_each_positive(boxes: list[tuple[int, str]]) -> None:
    half = len(boxes) // 2
    rows = [boxes[:half], boxes[half : 2 * half]]
    cost = torch.tensor([[float(c) for c, _ in row] for row in rows])
    positive = torch.tensor([[kind == "p" for _, kind in row] for row in rows])
    background = torch.tensor([[kind == "b" for _, kind in row] for row in rows])
    mined = hard_negatives(cost, positive, background)
    for row, taken in zip(rows, mined.tolist(), strict=True):
        wanted = 3 * sum(kind == "p" for _, kind in row)
        order = sorted((i for i, (_, kind) in enumerate(row) if kind == "b"), key=lambda i: -row[i][0])
        assert [i for i, t in enumerate(taken) if t] == sorted(order[:wanted])


def test_loss_of_a_blank_network(toy: TinySSD) -> None:
    """All logits equal: every counted box costs ln 3; one match and three negatives count."""
    box = torch.tensor([[20.0, 10, 42, 30]])
    targets = toy.targets(Labels([box, NO_BOXES], [torch.tensor([1]), NO_CLASSES], [NO_BOXES] * 2, SIZE))
    matches = int((targets.label > 0).sum())
    assert matches > 0
    raw = (torch.zeros(2, len(toy.default_boxes), 4), torch.zeros(2, len(toy.default_boxes), 3))
    terms = toy.loss(raw, targets)
    assert terms["class"].item() == pytest.approx(4 * math.log(3), rel=1e-5)
    wanted = targets.deltas[targets.label > 0]
    smooth = torch.where(wanted.abs() < 1, wanted.square() / 2, wanted.abs() - 0.5).sum()
    assert terms["box"].item() == pytest.approx(smooth.item() / matches, rel=1e-5)


def test_an_image_without_objects_contributes_nothing(toy: TinySSD) -> None:
    box = torch.tensor([[20.0, 10, 42, 30]])
    one = toy.targets(Labels([box], [torch.tensor([1])], [NO_BOXES], SIZE))
    two = toy.targets(Labels([box, NO_BOXES], [torch.tensor([1]), NO_CLASSES], [NO_BOXES] * 2, SIZE))
    deltas, logits = torch.randn(2, len(toy.default_boxes), 4), torch.randn(2, len(toy.default_boxes), 3)
    alone, both = toy.loss((deltas[:1], logits[:1]), one), toy.loss((deltas, logits), two)
    for name in ("class", "box"):
        assert both[name].item() == pytest.approx(alone[name].item(), rel=1e-5)


def test_a_batch_without_objects_is_finite_and_has_a_gradient(toy: TinySSD) -> None:
    targets = toy.targets(Labels([NO_BOXES] * 2, [NO_CLASSES] * 2, [NO_BOXES] * 2, SIZE))
    terms = toy.loss(toy(torch.rand(2, 3, 80, 96) * 255), targets)
    torch.stack(list(terms.values())).sum().backward()
    for parameter in toy.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


def test_regions_are_not_mined(toy: TinySSD) -> None:
    box, region = torch.tensor([[2.0, 2, 14, 14]]), torch.tensor([[30.0, 10, 64, 48]])
    targets = toy.targets(Labels([box], [torch.tensor([0])], [region], SIZE))
    logits = torch.zeros(1, len(toy.default_boxes), 3)
    raw = (torch.zeros(1, len(toy.default_boxes), 4), logits)
    quiet = toy.loss(raw, targets)["class"]
    logits[targets.ignored] = torch.tensor([0.0, 9, 0])
    assert toy.loss(raw, targets)["class"] == quiet
    logits[0, (targets.label == 0)[0] & ~targets.ignored[0]] = torch.tensor([0.0, 9, 0])
    assert toy.loss(raw, targets)["class"] > quiet


def test_a_box_without_area_is_dropped(toy: TinySSD) -> None:
    boxes = torch.tensor([[5.0, 5, 5, 9], [20, 10, 42, 30]])
    targets = toy.targets(Labels([boxes], [torch.tensor([0, 1])], [NO_BOXES], SIZE))
    assert set(targets.label.unique().tolist()) == {0, 2}
    assert torch.isfinite(targets.deltas).all()


# ------------------------------------------------------------------- network


def test_planted_targets_are_decoded(toy: TinySSD) -> None:
    boxes = torch.tensor([[2.0, 2, 14, 14], [20, 10, 60, 40]])
    targets = toy.targets(Labels([boxes], [torch.tensor([0, 1])], [NO_BOXES], SIZE))
    logits = 30 * F.one_hot(targets.label, 3).float()
    found, score, class_id = toy.decode((targets.deltas, logits))
    for i, box in enumerate(boxes):
        mine = targets.label[0] == i + 1
        assert mine.any()
        assert (found[0, mine] - box).abs().max() < 1e-3
        assert (score[0, mine] > 0.99).all()
        assert (class_id[0, mine] == i).all()
    assert score[targets.label == 0].max() < 1e-6


def test_boxes_lie_inside_the_image_whatever_the_network_says(toy: TinySSD) -> None:
    for value in (1e4, -1e4):
        raw = (torch.full((1, len(toy.default_boxes), 4), value), torch.zeros(1, len(toy.default_boxes), 3))
        boxes, score, _ = toy.decode(raw)
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor(SIZE * 2)).all()
        assert score.numpy() == pytest.approx(1 / 3)


def test_predictions_are_in_the_order_of_the_default_boxes(toy: TinySSD) -> None:
    """A predictor whose bias numbers its outputs, fed with one cell."""
    with torch.no_grad():
        for head in (*toy.box_heads, *toy.class_heads):
            head.weight.zero_()
            head.bias.copy_(torch.arange(len(head.bias)))
    deltas, logits = toy(torch.zeros(1, 3, 80, 96, dtype=torch.uint8))
    assert deltas[0, :5].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15],
                                      [0, 1, 2, 3]]  # fmt: skip
    assert logits[0, 4 * cells(96)[0] * cells(80)[0] + 5].tolist() == [15, 16, 17]


def test_another_size_is_refused(toy: TinySSD) -> None:
    with pytest.raises(ValueError, match="96x80 pixels, not 80x96"):
        toy(torch.zeros(1, 3, 96, 80))
    with pytest.raises(ValueError, match="96x80"):
        toy.targets(Labels([], [], [], (80, 96)))


def test_selection_of_voc(toy: TinySSD) -> None:
    selection = toy.selection
    assert (selection.score, selection.nms_iou, selection.top_n, selection.candidates) == (0.01, 0.45, 200, 800)
