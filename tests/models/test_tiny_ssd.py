"""Tiny SSD against the published totals and the published backbone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from squeezedet.errors import ModelError
from squeezedet.models.layers import MAX_LOG_SIZE, paired_iou, to_center, to_corners
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
    feature_maps,
    hard_negatives,
    match,
)
from squeezedet.pretrained.read import read_caffemodel
from squeezedet.runtime.engines import INPUT, OUTPUTS, OnnxRuntimeEngine
from squeezedet.training.checkpoint import load_squeezenet

NO_BOXES, NO_CLASSES = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
ROAD = ("car", "pedestrian", "cyclist")
SMALL = TinySSDConfig(classes=ROAD, size=(128, 96), squeeze_relu=False)


def small() -> TinySSD:
    torch.manual_seed(0)
    return TinySSD(SMALL)


# ------------------------------------------------------------------- network


def count(network: nn.Module, norms: bool) -> int:
    modules = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) == norms]
    return sum(p.numel() for m in modules for p in m.parameters(recurse=False))


def test_parameters() -> None:
    network = TinySSD()
    assert count(network, norms=False) == 1_132_764
    assert sum(p.numel() for p in network.parameters()) == 1_134_272
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert sum(len(m.bias) for m in convolutions if m.bias is not None) == 2_981
    assert [h.out_channels for h in network.box_heads] == [16, 24, 24, 24, 24, 16]
    assert [h.out_channels for h in network.class_heads] == [84, 126, 126, 126, 126, 84]


def test_the_papers_table_to_the_letter_has_more_parameters() -> None:
    assert count(TinySSD(TinySSDConfig(auxiliary_kernel=3)), norms=False) == 1_187_684


@torch.inference_mode()
def test_multiply_accumulates() -> None:
    """The paper's 571.09 million: those of the convolutions and one for each normalised value."""
    macs = {"conv": 0, "norm": 0}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            macs["conv"] += module.weight[0].numel() * output.numel()
        else:
            macs["norm"] += output.numel()

    network = TinySSD().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(note)
    network(torch.zeros(1, 3, 300, 300))
    assert macs["conv"] == 570_814_191
    assert sum(macs.values()) == 571_092_371


def test_feature_maps_at_300() -> None:
    assert cells(300) == (37, 18, 9, 4, 2, 1)
    network = TinySSD()
    maps = feature_maps(network.config)
    boxes = [m.columns * m.rows * len(m.shapes) for m in maps]
    assert boxes == [5_476, 1_944, 486, 96, 24, 4]
    assert network.default_boxes.shape == (8_030, 4)
    sizes = [(round(m.min_size, 6), round(m.max_size, 6), m.step[0]) for m in maps]
    assert sizes == [
        (21, 45, 8), (45, 99, 16), (99, 153, 32), (153, 207, 64), (207, 261, 100), (261, 315, 300),
    ]  # fmt: skip


@torch.inference_mode()
def test_shapes_at_300() -> None:
    network = TinySSD().eval()
    maps = network.features(torch.zeros(1, 3, 300, 300))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (173, 37, 37), (83, 18, 18), (101, 9, 9), (85, 4, 4), (46, 2, 2), (85, 1, 1),
    ]  # fmt: skip
    boxes, score, class_id = network.decode(network(torch.zeros(1, 3, 300, 300)))
    assert boxes.shape == (1, 8_030, 4)
    assert score.shape == class_id.shape == (1, 8_030)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(65, 65), (160, 96), (257, 71), (131, 193)])
def test_any_fixed_size(size: tuple[int, int]) -> None:
    """The default boxes are those of the maps that the layers give, and cover the input."""
    network = TinySSD(TinySSDConfig(classes=ROAD, size=size)).eval()
    assert network.input_rule.size(1242, 375) == size
    x = torch.zeros(1, 3, size[1], size[0])
    assert [m.shape[:1:-1] for m in network.features(x)] == list(zip(cells(size[0]), cells(size[1]), strict=True))
    deltas, logits = network(x)
    assert deltas.shape == (1, len(network.default_boxes), 4)
    assert logits.shape[-1] == 4
    centres = to_center(network.default_boxes)[:, :2]
    assert (centres.amin(0) + centres.amax(0)).tolist() == pytest.approx(size, rel=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", ()),
        ("size", (64, 300)),
        ("size", (300,)),
        ("scales", (0.1, 0.2)),
        ("ratios", ((2,),)),
        ("ratios", ((2,), (2, -3), (2,), (2,), (2,), (2,))),
        ("auxiliary_kernel", 2),
    ],
)
def test_values_that_make_no_network(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        TinySSDConfig(**{field: value})


@torch.inference_mode()
def test_the_mean_colour_is_black_to_the_network() -> None:
    network = small().eval()
    mean = torch.tensor([123.0, 117, 104]).view(1, 3, 1, 1).expand(1, 3, 96, 128)
    black = network.features(torch.zeros(1, 3, 96, 128))
    for one, two in zip(network.features(network.normalize(mean)), black, strict=True):
        assert torch.equal(one, two)


@torch.inference_mode()
def test_folding_the_mean_changes_nothing() -> None:
    network = small().double().eval()
    images = torch.randint(0, 256, (1, 3, 96, 128)).double()
    for one, two in zip(network.fused()(images), network(images), strict=True):
        assert torch.allclose(one, two, atol=1e-4)


# ------------------------------------------------------------------ learning


def test_planted_targets_are_decoded() -> None:
    network = TinySSD(TinySSDConfig(classes=ROAD))
    boxes = torch.tensor([[10.0, 20, 60, 90], [100, 90, 290, 250], [40, 200, 48, 220]])
    targets = network.targets(Labels([boxes], [torch.arange(3)], [NO_BOXES], (300, 300)))
    logits = 30 * F.one_hot(targets.label, 4).float()
    found, score, class_id = network.decode((targets.deltas, logits))
    for i, box in enumerate(boxes):
        mine = (class_id[0] == i) & (score[0] > 0.9)
        assert mine.any()
        assert (found[0, mine] - box).abs().max() < 2e-3


def test_some_steps_learn_one_batch() -> None:
    """Two pictures: the detector finds the three rectangles.

    Batch normalization over two values makes much of a rounding error, so the steps go on until
    every kernel and every seed is far below the bounds.
    """
    torch.manual_seed(0)
    network = TinySSD(TinySSDConfig(classes=ROAD, size=(96, 80), squeeze_relu=False))
    images = torch.rand(2, 3, 80, 96) * 80
    images[0, :, 16:48, 8:60] += 150
    images[0, 0, 20:76, 66:90] += 150
    images[1, :, 24:64, 30:90] += 150
    boxes = [torch.tensor([[8.0, 16, 60, 48], [66, 20, 90, 76]]), torch.tensor([[30.0, 24, 90, 64]])]
    classes = [torch.tensor([0, 1]), torch.tensor([0])]
    targets = network.targets(Labels(boxes, classes, [NO_BOXES] * 2, (96, 80)))
    optimizer = torch.optim.AdamW(network.parameters())
    losses = []
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 8e-3 if step < 46 else 2e-3
        optimizer.zero_grad()
        total = torch.stack(list(network.loss(network(images), targets).values())).sum()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < losses[0] / 5
    with torch.inference_mode():
        found, score, class_id = network.decode(network(images))  # normalised by the batch
    for n, (wanted, ids) in enumerate(zip(boxes, classes, strict=True)):
        for box, i in zip(wanted, ids, strict=True):
            best = int(torch.where(class_id[n] == i, score[n], -1).argmax())
            assert paired_iou(found[n, best], box) > 0.6


@pytest.mark.parametrize("size", [(65, 65), (96, 80), (160, 160), (300, 300)])
@torch.inference_mode()
def test_no_stride_is_longer_than_a_row(size: tuple[int, int]) -> None:
    """There oneDNN computes a kernel's gradient in bfloat16 from memory that nobody has written."""
    network = TinySSD(TinySSDConfig(classes=ROAD, size=size)).eval()
    rows = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        rows.append((inputs[0].shape[-1], module.stride[1]))

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    network(torch.zeros(1, 3, size[1], size[0]))
    assert len(rows) == 1 + 3 * 10 + 4 + 2 * 6
    assert all(columns >= stride for columns, stride in rows)


def test_a_batch_of_one_image_without_objects() -> None:
    network = small()
    targets = network.targets(Labels([NO_BOXES], [NO_CLASSES], [NO_BOXES], (128, 96)))
    total = torch.stack(list(network.loss(network(torch.rand(1, 3, 96, 128)), targets).values()))
    total.sum().backward()
    assert torch.isfinite(total).all()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


# -------------------------------------------------------------------- export


class Exported(nn.Module):
    def __init__(self, network: TinySSD) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.network.decode(self.network(images.permute(0, 3, 1, 2)))


@pytest.mark.filterwarnings("ignore")
@torch.inference_mode()
def test_the_exported_graph_answers_as_torch_does() -> None:
    network = small().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    program = torch.onnx.export(
        Exported(network.fused()),
        (torch.zeros(1, 96, 128, 3, dtype=torch.uint8),),
        dynamo=True,
        opset_version=18,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        verbose=False,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    boxes, score, class_id = Exported(network)(torch.from_numpy(pixels)[None])
    answer = OnnxRuntimeEngine(program.model_proto.SerializeToString(), threads=1).run(pixels)
    assert np.abs(answer.xyxy - boxes[0].numpy()).max() / 128 < 1e-4
    assert np.abs(answer.score - score[0].numpy()).max() < 1e-4
    assert (answer.class_id == class_id[0].numpy()).mean() > 0.99


# -------------------------------------------------------- published backbone


def published(network: TinySSD) -> dict[str, np.ndarray]:
    """The backbone as its file has it: Fire modules from 2, BGR, a classifier."""
    arrays = {"conv10.weight": np.zeros((7, 83, 1, 1)), "conv10.bias": np.zeros(7)}
    for name, parameter in network.named_parameters():
        layer, _, part = name.partition(".")
        if layer == "conv1" or (
            layer.startswith("fire") and layer not in ("fire9", "fire10") and layer != "fire4_norm"
        ):
            theirs = layer if layer == "conv1" else f"fire{int(layer[4:]) + 1}"
            if "norm" not in part:
                arrays[f"{theirs}.{part}"] = parameter.detach().numpy()
    arrays["conv1.weight"] = arrays["conv1.weight"][:, ::-1]
    return arrays


def saved(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_backbone_comes_back_from_its_file(tmp_path: Path) -> None:
    source, network = small(), TinySSD(SMALL)
    with torch.no_grad():
        source.conv1.bias.normal_()
    random = load_squeezenet(network, saved(tmp_path / "a.npz", published(source)))
    placed = [name for name, _ in network.named_parameters() if name not in random]
    assert len(placed) == 2 * 25
    assert {name.split(".")[0] for name in random} == {
        "box_heads", "class_heads", "fire8", "fire9", "fire10", "fire4_norm", "conv12_1", "conv12_2",
        "conv13_1", "conv13_2",
    }  # fmt: skip
    for name in placed:
        assert torch.equal(network.get_parameter(name), source.get_parameter(name)), name


def test_the_first_wrong_tensor_is_named_and_nothing_is_copied(tmp_path: Path) -> None:
    network = TinySSD(SMALL)
    before = {name: p.clone() for name, p in network.named_parameters()}
    arrays = published(small())
    arrays["fire3.expand1x1.weight"] = arrays["fire3.expand1x1.weight"][:50]
    with pytest.raises(ModelError, match=r"fire3.expand1x1.weight of shape 54x15x1x1.* 50x15x1x1"):
        load_squeezenet(network, saved(tmp_path / "a.npz", arrays))
    del arrays["fire2.squeeze1x1.bias"]
    with pytest.raises(ModelError, match=r"expected fire2.squeeze1x1.bias of shape 15"):
        load_squeezenet(network, saved(tmp_path / "b.npz", arrays))
    more = published(small()) | {"fire10.squeeze1x1.bias": np.zeros(3)}
    with pytest.raises(ModelError, match=r"no place for 'fire10.squeeze1x1.bias'"):
        load_squeezenet(network, saved(tmp_path / "c.npz", more))
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())


def test_a_network_that_the_backbone_was_not_trained_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", published(small()))
    with pytest.raises(ModelError, match="squeeze_relu=False"):
        load_squeezenet(TinySSD(TinySSDConfig(classes=ROAD, size=(128, 96))), path)


@pytest.mark.shared
@torch.inference_mode()
def test_the_published_backbone_sees(shared: Path) -> None:
    """With its own classifier behind Fire8 it names pictures: 60 % of them, by chance 0.1 %.

    All 250 pictures: 133 right, and 0 with a ReLU behind the squeeze layers.
    """
    from PIL import Image

    path = shared / "weights/tinyssd_backbone_iter180000.caffemodel"
    side = 227
    network = TinySSD(TinySSDConfig(size=(side, side), squeeze_relu=False)).eval()
    load_squeezenet(network, path)
    weight, bias = (torch.from_numpy(blob.copy()) for blob in read_caffemodel(path)["conv10"])
    rows = (shared / "data/imagenet_samples/labels.tsv").read_text().splitlines()[1:31]
    right = 0
    for name, index in (row.split("\t")[:2] for row in rows):
        with Image.open(shared / "data/imagenet_samples" / name) as file:
            picture = file.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture.crop((14, 14, 14 + side, 14 + side)))
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
        fire8 = network.features(network.normalize(x))[1]
        scores = F.relu(F.conv2d(fire8, weight, bias.flatten())).mean((2, 3))
        right += int(scores.argmax()) == int(index)
    assert right >= 15


# ------------------------------------------------------------ SSD's parts, by hand and by slow, plain code


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


def test_planted_targets_of_another_size_are_decoded(toy: TinySSD) -> None:
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
