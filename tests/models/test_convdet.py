"""SqueezeDet against the paper's and the code's numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.data.anchors import ANCHORS_A
from squeezedet.models.layers import paired_giou, paired_iou
from squeezedet.models.network import Labels
from squeezedet.models.squeezedet import PAPER, Assignment, ConvDet, ConvDetConfig, PaperConvDet, assign, safe_exp

NO_BOXES, NO_CLASSES = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


def near_zero(config: ConvDetConfig) -> ConvDet:
    torch.manual_seed(0)
    return ConvDet.from_config(config)


# ------------------------------------------------------------------- network


@pytest.mark.parametrize("config", [PAPER, ConvDetConfig()])
def test_parameters(config: ConvDetConfig) -> None:
    detector = ConvDet.from_config(config)
    per_layer = {
        name: sum(p.numel() for p in child.parameters())
        for name, child in (*detector.backbone.named_children(), ("convdet", detector.convdet))
    }
    # Supplement, Table 1, with fire2 and fire3 the right way round.
    assert {k: v for k, v in per_layer.items() if v} == {
        "conv1": 1_792,
        "fire2": 11_408,
        "fire3": 12_432,
        "fire4": 45_344,
        "fire5": 49_440,
        "fire6": 104_880,
        "fire7": 111_024,
        "fire8": 188_992,
        "fire9": 197_184,
        "fire10": 418_656,
        "fire11": 443_232,
        "convdet": 497_736,
    }
    assert sum(per_layer.values()) == 2_082_120


def test_sixteen_anchors_have_the_papers_parameters() -> None:
    config = ConvDetConfig(anchors=tuple((16 + i, 16) for i in range(16)))
    assert sum(p.numel() for p in ConvDet.from_config(config).parameters()) == 2_469_248


@pytest.mark.parametrize(
    ("config", "size", "gmac"), [(PAPER, (1242, 375), 4.818), (ConvDetConfig(), (1248, 384), 5.283)]
)
def test_multiply_accumulates(config: ConvDetConfig, size: tuple[int, int], gmac: float) -> None:
    """The convolutions' work, from shapes alone: 2 x 4.818 and 2 x 5.283 GFLOP."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        ConvDet.from_config(config).eval()(torch.zeros(1, 3, size[1], size[0]))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=5e-4)


@torch.inference_mode()
def test_paper_geometry_gives_15048_boxes() -> None:
    detector = PaperConvDet(PAPER).eval()
    raw = detector(torch.zeros(1, 3, 375, 1242, dtype=torch.uint8))
    assert raw.shape == (1, 72, 22, 76)
    assert detector.grid((1242, 375)) == (76, 22)
    boxes, score, class_id = detector.decode(raw)
    assert boxes.shape == (1, 15_048, 4)
    assert score.shape == class_id.shape == (1, 15_048)


@torch.inference_mode()
def test_default_geometry_gives_16848_boxes_at_1248x384() -> None:
    detector = ConvDet().eval()
    raw = detector(torch.zeros(1, 3, 384, 1248, dtype=torch.uint8))
    assert detector.decode(raw)[0].shape == (1, 16_848, 4)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(16, 16), (32, 16), (112, 64), (16, 208)])
def test_default_takes_any_multiple_of_16(size: tuple[int, int]) -> None:
    detector = ConvDet().eval()
    raw = detector(torch.zeros(2, 3, size[1], size[0]))
    assert raw.shape == (2, 72, size[1] // 16, size[0] // 16)


@pytest.mark.parametrize(("config", "shape"), [(ConvDetConfig(), (375, 1242)), (PAPER, (384, 1248))])
def test_wrong_size_is_refused(config: ConvDetConfig, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"16|1242x375"):
        ConvDet.from_config(config)(torch.zeros(1, 3, *shape))


@torch.inference_mode()
def test_receptive_field_is_centred_on_its_stride_cell() -> None:
    """A bright column reaches cell 10 exactly when it lies within 151 pixels of 16 * 10 + 7."""
    detector = ConvDet().double().eval()
    for p in detector.parameters():
        p.fill_(0.01)
    columns = [167 - 152, 167 - 151, 167 + 151, 167 + 152]
    images = torch.zeros(1 + len(columns), 3, 16, 336, dtype=torch.float64)
    for image, column in zip(images[1:], columns, strict=True):
        image[:, :, column] = 1e6
    answer = detector(images)[:, 0, 0, 10]
    assert (answer[1:] > answer[0]).tolist() == [False, True, True, False]


# ------------------------------------------------------------------- anchors


def test_anchors_of_the_paper_lie_at_k_w_over_n_plus_1() -> None:
    anchors = PaperConvDet(PAPER).anchors((76, 22)).view(22, 76, 9, 4)
    assert torch.allclose(anchors[0, :, 0, 0], torch.arange(1, 77) * 1242 / 77)
    assert torch.allclose(anchors[:, 0, 0, 1], torch.arange(1, 23) * 375 / 23)
    assert [tuple(a) for a in anchors[5, 7, :, 2:].int().tolist()] == list(ANCHORS_A)


def test_anchors_of_the_default_lie_on_the_stride() -> None:
    anchors = ConvDet().anchors((78, 24)).view(24, 78, 9, 4)
    assert anchors[0, 0, 0, :2].tolist() == [8, 8]
    assert anchors[23, 77, 8, :2].tolist() == [1240, 376]


def test_set_a() -> None:
    assert ANCHORS_A == (
        (36, 37), (366, 174), (115, 59), (162, 87), (38, 90), (258, 173), (224, 108), (78, 170),
        (72, 43),
    )  # fmt: skip


# ------------------------------------------------------------------ decoding


def test_channel_layout() -> None:
    """27 class logits, 9 confidences, 36 deltas, each with the anchor as the slow index."""
    detector = ConvDet()
    raw = torch.arange(72.0).view(1, 72, 1, 1)
    logits, confidence, deltas = detector.split(raw)
    assert logits[0, 4].tolist() == [12, 13, 14]
    assert confidence[0].tolist() == list(range(27, 36))
    assert deltas[0, 2].tolist() == [44, 45, 46, 47]


def test_anchor_order_is_row_column_anchor() -> None:
    detector = ConvDet()
    raw = torch.zeros(1, 72, 3, 5)
    raw[0, 27 + 2, 1, 4] = 9.0  # confidence of anchor 2 at row 1, column 4
    assert int(detector.decode(raw)[1].argmax()) == (1 * 5 + 4) * 9 + 2


def test_zero_deltas_give_the_anchor_in_default_and_one_pixel_more_in_paper() -> None:
    default = ConvDet().boxes(torch.zeros(1, 78 * 24 * 9, 4), (78, 24))[0]
    middle = (12 * 78 + 39) * 9
    assert default[middle].tolist() == [632 - 18, 200 - 18.5, 632 + 18, 200 + 18.5]
    paper = PaperConvDet(PAPER).boxes(torch.zeros(1, 15_048, 4), (76, 22))[0]
    x1, _, x2, _ = paper[(11 * 76 + 38) * 9].tolist()
    assert x2 - x1 == pytest.approx(37, abs=1e-4)


def test_boxes_stay_inside_the_image() -> None:
    deltas = torch.randn(1, 78 * 24 * 9, 4) * 3
    boxes = ConvDet().boxes(deltas, (78, 24))
    assert boxes.min() >= 0
    assert boxes[..., 0::2].max() <= 1248
    assert boxes[..., 1::2].max() <= 384
    assert (boxes[..., 2:] >= boxes[..., :2]).all()


def test_score_is_confidence_times_class_probability() -> None:
    detector = ConvDet(ConvDetConfig(anchors=((16, 16),)))
    raw = torch.tensor([1.0, 2.0, 0.5, 0.3, 0, 0, 0, 0]).view(1, 8, 1, 1)
    _, score, class_id = detector.decode(raw)
    p = math.exp(2) / (math.exp(1) + math.exp(2) + math.exp(0.5))
    assert class_id.item() == 1
    assert score.item() == pytest.approx(p / (1 + math.exp(-0.3)), abs=1e-6)


@given(st.floats(-50, 1))
def test_safe_exp_is_exp_up_to_one(x: float) -> None:
    assert safe_exp(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(math.exp(x))


@given(st.floats(1, 1e30))
def test_safe_exp_is_a_line_beyond(x: float) -> None:
    t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = safe_exp(t)
    y.backward()
    assert y.item() == pytest.approx(math.e * x)
    assert t.grad is not None
    assert t.grad.item() == pytest.approx(math.e)


# ------------------------------------------------------------------- targets

box = st.tuples(st.floats(0, 300), st.floats(0, 140), st.floats(2, 300), st.floats(2, 150)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 320), min(b[1] + b[3], 160))
)


@given(st.lists(box, max_size=8), st.booleans())
def test_every_object_has_an_anchor_and_no_anchor_two(boxes: list[tuple[float, ...]], paper: bool) -> None:
    # 335x175 without padding is a grid of 20x10.
    detector = ConvDet.from_config(replace(PAPER, size=(335, 175)) if paper else ConvDetConfig())
    size = (335, 175) if paper else (320, 160)
    xyxy = torch.tensor(boxes).view(-1, 4)
    classes = torch.arange(len(boxes)) % 3
    targets = detector.targets(Labels([xyxy], [classes], [NO_BOXES], size))
    owned = targets.boxes[targets.positive]
    wanted = xyxy + torch.tensor([0, 0, 1, 1]) if paper else xyxy
    for b in wanted:
        assert (owned == b).all(1).any()
    count = int(targets.positive.sum())
    assert count == len(boxes) if paper else len(boxes) <= count <= 8 * len(boxes)
    assert not (targets.positive & targets.ignored).any()


@given(box)
def test_deltas_decode_to_the_object(b: tuple[float, ...]) -> None:
    """Equation 3 undoes equation 1 wherever safe_exp is exp."""
    detector = ConvDet()
    targets = detector.targets(Labels([torch.tensor([b])], [torch.tensor([0])], [NO_BOXES], (320, 160)))
    decoded = detector.boxes(targets.deltas, (20, 10))[targets.positive]
    exact = targets.deltas[targets.positive][:, 2:].max(1).values <= 1
    assert torch.allclose(decoded[exact], targets.boxes[targets.positive][exact], atol=0.01)


def test_best_anchor_first_and_ties_find_another() -> None:
    """Two objects in one place take two anchors, in order, as the code does."""
    detector = ConvDet(ConvDetConfig(anchors_per_object=1))
    anchors = detector.anchors((78, 24))
    same = torch.tensor([[614.0, 181.5, 650, 218.5]] * 2)
    positive = assign(anchors, same, torch.tensor([0, 1]), NO_BOXES, Assignment(anchors_per_object=1))[0]
    first, second = positive.nonzero().flatten().tolist()
    assert (12 * 78 + 39) * 9 in (first, second)
    assert first != second


def test_an_object_that_overlaps_nothing_takes_the_nearest_anchor() -> None:
    detector = ConvDet(ConvDetConfig(anchors=((4, 4),)))
    edge = torch.tensor([[0.0, 0, 1, 1]])
    targets = detector.targets(Labels([edge], [torch.tensor([2])], [NO_BOXES], (64, 64)))
    assert targets.positive[0].nonzero().flatten().tolist() == [0]


@pytest.mark.parametrize("region", [(200.0, 100, 600, 300), (700.0, 180, 715, 192)])
def test_regions_have_no_confidence_loss(region: tuple[float, ...]) -> None:
    """A large region, and one smaller than every anchor."""
    detector = ConvDet()
    targets = detector.targets(Labels([NO_BOXES], [NO_CLASSES], [torch.tensor([region])], (1248, 384)))
    assert 0 < int(targets.ignored.sum()) < targets.ignored.numel() / 2
    raw = torch.zeros(1, 72, 24, 78)
    quiet = detector.loss(raw, targets)["background"]
    assert quiet.item() == pytest.approx(25)
    ignored = targets.ignored.view(1, 24, 78, 9).permute(0, 3, 1, 2)
    raw[:, 27:36][ignored] = 10.0
    assert detector.loss(raw, targets)["background"] == quiet
    raw[:, 27:36][~ignored] = 10.0
    assert detector.loss(raw, targets)["background"] > quiet


def test_more_objects_than_anchors() -> None:
    detector = ConvDet(ConvDetConfig(anchors=((16, 16),)))
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 2, 12, 12], [4, 4, 16, 16], [0, 0, 0, 5]])
    targets = detector.targets(Labels([boxes], [torch.arange(4) % 3], [NO_BOXES], (16, 32)))
    assert targets.positive.all()
    assert torch.isfinite(targets.deltas).all()


# ---------------------------------------------------------------------- loss


def test_start_up_loss_of_the_paper() -> None:
    """Near-zero head: class -ln(1/3) - 2 ln(2/3) = 1.9095, background 100 * 0.25 = 25."""
    detector = near_zero(PAPER).eval()
    boxes = torch.tensor([[600.0, 170, 700, 230], [200, 180, 240, 260]])
    targets = detector.targets(Labels([boxes], [torch.tensor([0, 1])], [NO_BOXES], (1242, 375)))
    with torch.no_grad():
        terms = detector.loss(detector(torch.zeros(1, 3, 375, 1242)), targets)
    assert terms["class"].item() == pytest.approx(1.9095, abs=2e-3)
    assert terms["background"].item() == pytest.approx(25, abs=0.1)
    assert set(terms) == {"class", "object", "background", "box"}


def test_start_up_loss_of_the_default() -> None:
    detector = near_zero(ConvDetConfig()).eval()
    boxes = torch.tensor([[600.0, 170, 700, 230]])
    targets = detector.targets(Labels([boxes], [torch.tensor([0])], [NO_BOXES], (1248, 384)))
    with torch.no_grad():
        terms = detector.loss(detector(torch.zeros(1, 3, 384, 1248)), targets)
    assert terms["class"].item() == pytest.approx(math.log(3), abs=2e-3)
    assert terms["background"].item() == pytest.approx(25, abs=0.1)


def test_papers_confidence_loss_has_one_more_division_by_the_batch() -> None:
    """Trap 8: at batch 20 the weight of a positive is 75 / 20 = 3.75."""
    detector = PaperConvDet(PAPER)
    boxes = torch.tensor([[600.0, 170, 700, 230]])
    raw = torch.zeros(1, 72, 22, 76)
    one = detector.loss(raw, detector.targets(Labels([boxes], [torch.tensor([0])], [NO_BOXES], (1242, 375))))
    batch = detector.targets(Labels([boxes] * 20, [torch.tensor([0])] * 20, [NO_BOXES] * 20, (1242, 375)))
    twenty = detector.loss(raw.expand(20, -1, -1, -1), batch)
    assert twenty["object"].item() == pytest.approx(one["object"].item() / 20, rel=1e-4)
    assert twenty["box"].item() == pytest.approx(one["box"].item(), rel=1e-4)


def test_papers_background_counts_mix_batch_and_image() -> None:
    """Trap 8: anchors of one image less the objects of the batch, and once more the batch."""
    boxes = [torch.tensor([[600.0, 170, 700, 230]])] * 2
    raw = torch.zeros(2, 72, 22, 76, dtype=torch.float64)
    detector = PaperConvDet(PAPER)
    targets = detector.targets(Labels(boxes, [torch.tensor([0])] * 2, [NO_BOXES] * 2, (1242, 375)))
    background = detector.loss(raw, targets)["background"].item()
    assert background == pytest.approx(100 * 0.25 * (2 * 15_048 - 2) / (15_048 - 2) / 2, rel=1e-6)
    assert background != pytest.approx(25, rel=1e-5)


@pytest.mark.parametrize("config", [PAPER, ConvDetConfig()])
def test_images_without_objects_give_a_finite_loss(config: ConvDetConfig) -> None:
    detector = ConvDet.from_config(config)
    size = (1242, 375) if config is PAPER else (64, 32)
    targets = detector.targets(Labels([NO_BOXES], [NO_CLASSES], [NO_BOXES], size))
    terms = detector.loss(detector(torch.zeros(1, 3, size[1], size[0])), targets)
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert terms["class"] == terms["object"] == terms["box"] == 0


def test_iou_target_has_no_gradient() -> None:
    """Trap 9: the confidence loss moves confidences only, never boxes."""
    detector = ConvDet()
    raw = (torch.randn(1, 72, 4, 4) * 0.1).requires_grad_()
    boxes = torch.tensor([[10.0, 10, 50, 40]])
    targets = detector.targets(Labels([boxes], [torch.tensor([0])], [NO_BOXES], (64, 64)))
    detector.loss(raw, targets)["object"].backward()
    assert raw.grad is not None
    assert raw.grad[:, 36:].abs().max() == 0
    assert raw.grad[:, 27:36].abs().max() > 0


def test_huge_deltas_stay_finite() -> None:
    detector = ConvDet()
    raw = torch.full((1, 72, 4, 4), 1e4, requires_grad=True)
    boxes = torch.tensor([[10.0, 10, 50, 40]])
    targets = detector.targets(Labels([boxes], [torch.tensor([0])], [NO_BOXES], (64, 64)))
    total = torch.stack(list(detector.loss(raw, targets).values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


@given(st.lists(box, min_size=2, max_size=2))
def test_giou_is_at_most_iou(pair: list[tuple[float, ...]]) -> None:
    a, b = torch.tensor(pair).double()
    assert -1 <= paired_giou(a, b) <= paired_iou(a, b) + 1e-9
    assert paired_giou(a, a).item() == pytest.approx(1)


def test_a_few_steps_learn_one_image() -> None:
    """Overfit one picture: the detector finds its two rectangles."""
    torch.manual_seed(0)
    detector = ConvDet(ConvDetConfig(dropout=0.0))
    for name, p in detector.named_parameters():  # He initialisation: there are no trained weights
        if name.endswith("weight") and "convdet" not in name:
            torch.nn.init.kaiming_normal_(p)
    with torch.no_grad():
        detector.backbone.get_parameter("conv1.weight").div_(64)  # it sees pixels
    images = torch.full((1, 3, 64, 128), 90.0)
    images[..., 16:48, 16:80] = 220.0
    images[..., 8:56, 96:120] = 20.0
    boxes = torch.tensor([[16.0, 16, 80, 48], [96, 8, 120, 56]])
    targets = detector.targets(Labels([boxes], [torch.tensor([0, 1])], [NO_BOXES], (128, 64)))
    optimizer = torch.optim.AdamW(detector.parameters())
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 1e-3 if step < 75 else 2.5e-4  # far above the bound with any kernel
        optimizer.zero_grad()
        torch.stack(list(detector.loss(detector(images), targets).values())).sum().backward()
        optimizer.step()
    found, score, class_id = (t[0] for t in detector.eval().decode(detector(images)))
    for i, b in enumerate(boxes):
        best = int(torch.where(class_id == i, score, -1).argmax())
        assert paired_iou(found[best], b) > 0.6
