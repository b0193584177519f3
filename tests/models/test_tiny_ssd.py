"""Tiny SSD against the published totals and the published backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.errors import ModelError
from squeezedet.models.layers import paired_iou, to_center
from squeezedet.models.network import Labels
from squeezedet.models.tiny_ssd import TinySSD, TinySSDConfig, cells, feature_maps
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
