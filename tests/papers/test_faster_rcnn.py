"""Faster R-CNN against the numbers of its papers and of the published code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from squeezedet import boxes as numpy_boxes
from squeezedet.models.layers import clip, deltas_between, move, nms, spare_boxes
from squeezedet.models.network import Labels
from squeezedet.papers.faster_rcnn import (
    FasterRCNN,
    FasterRCNNConfig,
    Proposals,
    Raw,
    anchor_losses,
    assign_anchors,
    draw,
    in_regions,
    sample_rois,
)

SMALL = FasterRCNNConfig(
    backbone="alexnet",
    scales=(2.0, 4.0),
    hidden=16,
    candidates=64,
    proposals=16,
    training_candidates=64,
    training_proposals=16,
    min_size=4,
)
SIZE = (112, 64)
NO_BOXES, NO_CLASSES = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
OBJECTS = torch.tensor([[10.0, 8, 50, 40], [60, 20, 90, 60]])
CLASSES = torch.tensor([2, 0])


@pytest.fixture(scope="module")
def small() -> FasterRCNN:
    return lively(SMALL)


def lively(config: FasterRCNNConfig) -> FasterRCNN:
    """A detector whose random weights give scores and boxes that differ."""
    torch.manual_seed(0)
    detector = FasterRCNN(config).eval()
    with torch.no_grad():
        detector.rpn_score.weight.mul_(5)
        detector.rpn_delta.weight.mul_(10)
        detector.score.weight.mul_(10)
        detector.delta.weight.mul_(100)
    return detector


def noise(n: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 3, size[1], size[0]), generator=generator, dtype=torch.uint8)


# ------------------------------------------------------------------- network


@pytest.mark.parametrize(
    ("backbone", "parameters", "mib", "gmac"),
    [("vgg16", 136_729_994, 521.6, (143.41, 4.47, 35.89)), ("alexnet", 57_554_122, 219.6, (6.80, 1.07, 16.38))],
)
def test_parameters_and_multiply_accumulates(
    backbone: str, parameters: int, mib: float, gmac: tuple[float, float, float]
) -> None:
    """Convolutions, the first stage, and 300 boxes through the second, at 1242x375."""
    with torch.device("meta"):
        detector = FasterRCNN(FasterRCNNConfig(backbone=backbone))  # type: ignore[arg-type]
        with FlopCounterMode(display=False) as counter:
            raw = detector.train()(torch.zeros(1, 3, 375, 1242))  # without the second stage
            detector.classify(raw.features, [torch.zeros(300, 4)])
    assert sum(p.numel() for p in detector.parameters()) == parameters
    assert parameters * 4 / 2**20 == pytest.approx(mib, abs=0.05)
    assert counter.get_total_flops() / 2e9 == pytest.approx(sum(gmac), abs=0.02)


@pytest.mark.parametrize("backbone", ["vgg16", "alexnet"])
def test_no_shape_depends_on_the_pixels(backbone: str) -> None:
    """Both stages run where tensors have no numbers, so any counter can weigh them."""
    with torch.device("meta"):
        config = FasterRCNNConfig(backbone=backbone, proposals=20)  # type: ignore[arg-type]
        detector = FasterRCNN(config).eval()
        boxes, score, class_id = detector.decode(detector(torch.zeros(1, 3, 384, 1248)))
    assert boxes.shape == (1, 20, 4)
    assert score.shape == class_id.shape == (1, 20)


def test_anchors_are_the_published_nine() -> None:
    """py-faster-rcnn's list counts the last pixel, so its x2 and y2 are one lower."""
    detector = FasterRCNN(replace(SMALL, scales=(8.0, 16.0, 32.0)))
    published = [
        [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
        [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
        [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
    ]  # fmt: skip
    anchors = detector.anchors((3, 2)).view(2, 3, 9, 4)
    last_pixel = anchors - torch.tensor([0.0, 0, 1, 1])
    assert last_pixel[0, 0].tolist() == published
    assert (anchors[1, 2] - anchors[0, 0]).unique(dim=0).tolist() == [[32, 16, 32, 16]]


@torch.inference_mode()
def test_shapes_and_ranges(small: FasterRCNN) -> None:
    raw = small(noise(2))
    assert raw.features.shape == (2, 256, 4, 7)
    assert raw.objectness.shape == (2, 4 * 7 * 6, 2)
    assert raw.deltas.shape == (2, 4 * 7 * 6, 4)
    boxes, score, class_id = small.decode(raw)
    assert boxes.shape == (2, 16, 4)
    assert score.shape == class_id.shape == (2, 16)
    assert torch.equal(clip(boxes, SIZE), boxes)
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert score.min() >= 0
    assert 0.3 < score.max() <= 1
    assert set(class_id.unique().tolist()) <= {0, 1, 2}


@torch.inference_mode()
def test_an_image_is_answered_alike_alone_and_in_a_batch(small: FasterRCNN) -> None:
    images = noise(2)
    together = small.decode(small(images))
    for i in range(2):
        alone = small.decode(small(images[i : i + 1]))
        assert torch.allclose(together[0][i], alone[0][0], atol=1e-2)
        assert torch.allclose(together[1][i], alone[1][0], atol=1e-5)


@torch.inference_mode()
def test_a_map_from_training_decodes_too() -> None:
    detector = lively(replace(SMALL, dropout=0.0)).train()
    raw = detector(noise())
    assert raw.proposals is None
    expected = detector.eval().decode(detector(noise()))
    assert torch.equal(detector.decode(raw)[0], expected[0])


# -------------------------------------------------------------------- boxes

xyxy = st.tuples(*[st.floats(0, 300, width=32), st.floats(1, 200, width=32)] * 2).map(
    lambda b: [b[0], b[2], b[0] + b[1], b[2] + b[3]]
)


@given(xyxy, xyxy)
def test_moving_by_the_deltas_between_gives_the_box(a: list[float], b: list[float]) -> None:
    box, wanted = torch.tensor(a).double(), torch.tensor(b).double()
    if (wanted[2:] - wanted[:2] < 60 * (box[2:] - box[:2])).all():
        assert torch.allclose(move(box, deltas_between(box, wanted)), wanted, atol=1e-6)


def test_no_delta_overflows() -> None:
    assert move(torch.tensor([0.0, 0, 10, 10]), torch.full((4,), 1e4)).isfinite().all()


@given(st.lists(xyxy, max_size=40), st.floats(0.05, 0.95), st.integers(1, 12))
def test_nms_keeps_what_numpys_keeps(rows: list[list[float]], iou: float, count: int) -> None:
    boxes = torch.tensor(rows).view(-1, 4)
    ranked = torch.cat([boxes, spare_boxes(count, boxes.device)])
    score = torch.arange(len(ranked), 0, -1.0)
    kept = nms(ranked, score, iou, count)
    expected = numpy_boxes.nms(ranked.numpy(), score.numpy(), iou)[:count]
    assert kept.tolist() == expected.tolist()


# ----------------------------------------------------------------- proposals


def planted(detector: FasterRCNN, box: list[float], anchor: int) -> Raw:
    """A first stage that is sure of one box, from one anchor, and of nothing else."""
    anchors = detector.anchors((7, 4))
    objectness, deltas = torch.zeros(1, len(anchors), 2), torch.zeros(1, len(anchors), 4)
    objectness[..., 0] = 5
    objectness[0, anchor, 1] = 9
    deltas[0, anchor] = deltas_between(anchors[anchor], torch.tensor(box))
    return Raw(torch.zeros(1, 256, 4, 7), objectness, deltas, SIZE, None)


def test_a_planted_proposal_comes_first(small: FasterRCNN) -> None:
    box = [10.0, 8, 50, 40]
    boxes, found = small.propose(planted(small, box, 50), 64, 16)
    assert boxes[0, 0].tolist() == pytest.approx(box, abs=1e-3)
    assert found[0, 0]
    overlaps = numpy_boxes.iou(boxes[0, found[0]].numpy(), boxes[0, found[0]].numpy())
    assert (overlaps - np.eye(len(overlaps))).max() <= 0.7 + 1e-6


def test_small_boxes_are_not_proposed(small: FasterRCNN) -> None:
    box = [10.0, 8, 50, 11.5]  # 3.5 pixels high
    boxes, found = small.propose(planted(small, box, 50), 64, 16)
    sides = (boxes[..., 2:] - boxes[..., :2])[found]
    assert sides.min() >= 4


def test_rows_without_a_proposal_are_empty_and_score_nothing(small: FasterRCNN) -> None:
    detector = FasterRCNN(replace(SMALL, min_size=65.0)).eval()  # higher than the image
    with torch.inference_mode():
        boxes, score, _ = detector.decode(detector(noise()))
    assert not boxes.any()
    assert not score.any()


def test_a_planted_class_and_its_deltas_give_the_object_back(small: FasterRCNN) -> None:
    proposal, wanted = torch.tensor([12.0, 10, 44, 36]), torch.tensor([10.0, 8, 50, 40])
    logits, deltas = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4, 4)
    logits[0, 0, 2] = 3.0  # channel 0 is background: class 1
    deltas[0, 0, 2] = deltas_between(proposal, wanted) / torch.tensor([0.1, 0.1, 0.2, 0.2])
    second = Proposals(proposal.view(1, 1, 4), torch.ones(1, 1, dtype=torch.bool), logits, deltas)
    raw = planted(small, [0.0, 0, 16, 16], 0)._replace(proposals=second)
    boxes, score, class_id = small.decode(raw)
    assert boxes[0, 0].tolist() == pytest.approx(wanted.tolist(), abs=1e-3)
    assert class_id.item() == 1
    assert score.item() == pytest.approx(np.exp(3) / (np.exp(3) + 3), abs=1e-6)


# ------------------------------------------------------------------- targets


@given(st.lists(xyxy, max_size=5), st.lists(xyxy, max_size=2))
def test_labels_follow_section_3_1_2(objects: list[list[float]], areas: list[list[float]]) -> None:
    image = (320, 160)
    boxes = clip(torch.tensor(objects).view(-1, 4), image)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] > 1).all(1)]
    regions = torch.tensor(areas).view(-1, 4)
    anchors = FAST_ANCHORS
    label, deltas = assign_anchors(anchors, boxes, regions, image)
    inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] <= torch.tensor(image)).all(1)
    overlap = torch.from_numpy(numpy_boxes.iou(boxes.numpy(), anchors.numpy())) * inside
    best, owner = overlap.max(0) if len(boxes) else (torch.zeros(len(anchors)), torch.zeros(len(anchors)))
    assert (label[~inside] == -1).all()
    assert (label[best >= 0.7 + 1e-5] == 1).all()
    for row in overlap:  # every object that an anchor inside the image touches is learnt
        assert row.max() < 1e-5 or label[row.argmax()] == 1
    assert (best[label == 0] < 0.3 + 1e-5).all()
    assert not in_regions(anchors, regions)[label == 0].any()
    learnt = label == 1
    if learnt.any():
        wanted = boxes[owner[learnt]]
        assert torch.allclose(move(anchors[learnt], deltas[learnt]), wanted, atol=1e-2)
    assert not deltas[~learnt].any()


FAST_ANCHORS = FasterRCNN(SMALL).anchors((20, 10))


def test_second_stage_learns_a_quarter_objects_and_no_region() -> None:
    near = OBJECTS[0] + torch.linspace(-3, 3, 100)[:, None]
    far = torch.tensor([60.0, 0, 110, 15]) + torch.rand(300, 1)
    hidden = torch.tensor([[0.0, 50, 40, 64]]).expand(200, 4)
    objects = torch.cat([OBJECTS[:1], torch.zeros(1, 4)])  # the second row only fills up
    rois = sample_rois(
        torch.cat([near, far, hidden]), objects, torch.tensor([2, -1]), torch.tensor([[0.0, 48, 50, 64]])
    )
    assert len(rois.label) == 128
    assert rois.label.tolist() == [3] * 32 + [0] * 96
    assert torch.equal(rois.objects[:32], OBJECTS[0].expand(32, 4))
    assert (rois.boxes[32:, 0] >= 60).all()


def test_first_stage_learns_256_anchors_half_of_them_objects() -> None:
    """Each anchor's logits hold its own weight, so the gradient tells which were drawn."""
    label = torch.tensor([1] * 200 + [0] * 400 + [-1] * 100)
    logits, deltas = torch.zeros(700, 2, requires_grad=True), torch.zeros(700, 4)
    anchor_losses(logits, deltas, label, torch.zeros(700, 4))[0].backward()
    assert logits.grad is not None
    drawn = logits.grad.abs().sum(1) > 0
    assert [drawn[:200].sum(), drawn[200:600].sum(), drawn[600:].sum()] == [128, 128, 0]
    assert logits.grad[drawn].abs().unique().tolist() == pytest.approx([0.5 / 256])


# ---------------------------------------------------------------------- loss


def one_batch(detector: FasterRCNN) -> tuple[Tensor, object]:
    images = noise(2)
    for (x1, y1, x2, y2), colour in zip(OBJECTS.int().tolist(), (255, 0), strict=True):
        images[0, :, y1:y2, x1:x2] = colour
    targets = detector.targets(Labels([OBJECTS, NO_BOXES], [CLASSES, NO_CLASSES], [NO_BOXES] * 2, SIZE))
    return images, targets


def test_loss_falls_on_one_batch() -> None:
    detector = lively(SMALL).train()
    images, targets = one_batch(detector)
    optimiser = torch.optim.Adam(detector.parameters(), lr=1e-4)  # with more the loss jumps
    history = []
    for _ in range(20):
        terms = detector.loss(detector(images), targets)
        total = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        history.append(total.item())
    assert set(terms) == {"rpn_class", "rpn_box", "class", "box"}
    assert np.mean(history[-5:]) < 0.6 * history[0]


@pytest.mark.parametrize("objects", [True, False])
def test_every_layer_learns_with_and_without_objects(objects: bool) -> None:
    detector = lively(SMALL).train()
    images, targets = one_batch(detector)
    if not objects:
        empty = [NO_BOXES] * 2
        targets = detector.targets(Labels(empty, [NO_CLASSES] * 2, empty, SIZE))
    terms = detector.loss(detector(images), targets)
    torch.stack(list(terms.values())).sum().backward()
    assert all(term.isfinite() for term in terms.values())
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        boxes_only = name.startswith(("delta.", "rpn_delta."))
        assert parameter.grad.any() == (objects or not boxes_only), name


def test_the_seed_decides_what_is_drawn() -> None:
    mask = torch.arange(400) % 2 == 0

    def drawn(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return draw(mask, 50).tolist()

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 50
    assert all(mask[index] for index in drawn(1))


def test_loss_is_float32_whatever_the_maps_are() -> None:
    detector = lively(SMALL)
    images, targets = one_batch(detector)
    raw = detector(images)
    half = Raw(*(x.bfloat16() for x in raw[:3]), SIZE, None)
    for name, term in detector.loss(half, targets).items():
        assert term.dtype == torch.float32, name
        assert term.isfinite(), name


# -------------------------------------------------------------------- export


class Exported(nn.Module):
    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.detector.decode(self.detector(images.permute(0, 3, 1, 2)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backbone", ["alexnet", "vgg16"])
def test_onnx_graph_answers_alike_at_every_size(backbone: str) -> None:
    """One node each for NMS and RoI pooling; sides are any multiples of 16."""
    import onnxruntime

    detector = lively(replace(SMALL, backbone=backbone, candidates=100, proposals=40))
    rows, columns = torch.export.Dim("rows", min=2), torch.export.Dim("columns", min=2)
    program = torch.onnx.export(
        Exported(detector),
        (noise().permute(0, 2, 3, 1),),
        dynamo=True,
        opset_version=18,
        dynamic_shapes=({1: 16 * rows, 2: 16 * columns},),
        verbose=False,
    )
    assert program is not None
    nodes = [node.op_type for node in program.model_proto.graph.node]
    assert nodes.count("NonMaxSuppression") == nodes.count("MaxRoiPool") == 1
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for size in (SIZE, (208, 128), (32, 32)):
        images = noise(1, size)
        with torch.inference_mode():
            boxes, score, class_id = detector.decode(detector(images))
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        answer = session.run(None, {session.get_inputs()[0].name: pixels})
        assert np.abs(answer[0] - boxes.numpy()).max() < 1e-2
        assert np.abs(answer[1] - score.numpy()).max() < 1e-4
        assert (answer[2] == class_id.numpy()).all()


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("backbone", ["alexnet", "vgg16"])
def test_the_whole_network_runs(backbone: str) -> None:
    torch.manual_seed(0)
    detector = FasterRCNN(FasterRCNNConfig(backbone=backbone)).eval()  # type: ignore[arg-type]
    boxes, score, _ = detector.decode(detector(noise(1, (320, 128))))
    assert boxes.shape == (1, 300, 4)
    assert boxes.isfinite().all()
    assert 0.2 < score.max() <= 1
