"""ConvDet on each backbone: counts, learning, decoding, export."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from squeezedet.data.anchors import ANCHORS_B
from squeezedet.exporting.bundle import export, round_to_half
from squeezedet.models import registry
from squeezedet.models.backbones import Bottleneck, FrozenBatchNorm, ResNet50
from squeezedet.models.layers import paired_iou
from squeezedet.models.network import Labels
from squeezedet.models.squeezedet import PAPER, ConvDet, ConvDetConfig, PaperConvDet
from squeezedet.runtime.engines import OnnxRuntimeEngine
from squeezedet.training.checkpoint import initialize

NAMES = ("squeezedet-plus", "resnet50-convdet", pytest.param("vgg16-convdet", marks=pytest.mark.slow))
BOXES = torch.tensor([[16.0, 16, 80, 48], [96, 8, 120, 56]])


def scene() -> Tensor:
    """Two rectangles on grey."""
    images = torch.full((1, 3, 64, 128), 90.0)
    images[..., 16:48, 16:80] = 220.0
    images[..., 8:56, 96:120] = 20.0
    return images


def build(name: str) -> ConvDet:
    config = registry.config_of(name, dropout=0.0, size=(128, 64))
    detector = initialize("convdet", config, seed=2).detector
    assert isinstance(detector, ConvDet)
    return detector


@pytest.mark.parametrize(
    ("name", "grid", "boxes"),
    [
        ("squeezedet", (76, 22), 15_048),
        ("squeezedet-plus", (76, 22), 15_048),
        ("vgg16-convdet", (78, 24), 16_848),
        ("resnet50-convdet", (78, 24), 16_848),
    ],
)
def test_the_papers_grid(name: str, grid: tuple[int, int], boxes: int) -> None:
    config = replace(PAPER, backbone=registry.config_of(name).backbone)
    with torch.device("meta"):
        detector = ConvDet.from_config(config).eval()
    assert detector.grid((1242, 375)) == grid
    raw = detector(torch.zeros(1, 3, 375, 1242, device="meta"))
    assert tuple(raw.shape) == (1, 72, grid[1], grid[0])
    assert detector.anchors(grid).shape == (boxes, 4)


@pytest.mark.parametrize(("size", "boxes"), [((1863, 562), 35_190), ((931, 281), 8_208)])
def test_other_sizes_of_the_paper(size: tuple[int, int], boxes: int) -> None:
    """x1.5 has 115 x 34 x 9 boxes (supplement); x0.75 has 57 x 16 x 9."""
    with torch.device("meta"):
        detector = PaperConvDet(replace(PAPER, size=size)).eval()
    assert detector.anchors(detector.grid(size)).shape == (boxes, 4)
    assert detector(torch.zeros(1, 3, *size[::-1], device="meta")).shape[2:] == (detector.grid(size)[::-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_one_image(name: str) -> None:
    detector, images = build(name), scene()
    targets = detector.targets(Labels([BOXES], [torch.tensor([0, 1])], [torch.zeros(0, 4)], (128, 64)))
    detector.requires_grad_(True)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-4)
    losses: list[float] = []
    while len(losses) < 400 and (not losses or losses[-1] > 0.02 * losses[0]):  # well past the bound
        optimizer.zero_grad()
        loss = torch.stack(list(detector.loss(detector(images), targets).values())).sum()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 50)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] <= 0.05 * losses[0]
    found, score, class_id = (t[0] for t in detector.eval().decode(detector(images)))
    for i, box in enumerate(BOXES):
        best = int(torch.where(class_id == i, score, -1).argmax())
        assert paired_iou(found[best], box) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_export_answers_as_torch_does(name: str) -> None:
    detector = build(name).eval()
    nn.init.normal_(detector.convdet.weight, std=0.01)
    graph = export(detector, (128, 64))
    detector = round_to_half(detector)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    with torch.inference_mode():
        boxes, score, _ = detector.decode(detector(torch.from_numpy(pixels).permute(2, 0, 1)[None]))
    answer = OnnxRuntimeEngine(graph).run(pixels)
    assert np.abs(answer.score - score[0].numpy()).max() < 1e-4
    assert np.abs(answer.xyxy - boxes[0].numpy()).max() < 1e-2


def test_resnet_is_the_caffe_model() -> None:
    """Anchor set B, no batch statistics, the stride in the first 1x1."""
    assert registry.config_of("resnet50-convdet").anchors == ANCHORS_B
    network = ResNet50()
    for stage, stride in ((2, 1), (3, 2), (4, 2)):
        first = network.get_submodule(f"res{stage}.a")
        assert isinstance(first, Bottleneck)
        assert first.branch2a.conv.stride == (stride, stride)
        assert first.branch2b.conv.stride == (1, 1)
    norm = FrozenBatchNorm(2).train()
    norm.mean.copy_(torch.tensor([1.0, 2.0]))
    norm.variance.copy_(torch.tensor([4.0, 9.0]))
    x = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
    assert torch.allclose(norm(x).view(2), torch.ones(2), atol=1e-5)
    assert norm.mean.tolist() == [1, 2]
    convolutions = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d))
    assert convolutions + 1024 * 9 * 72 == 9_176_256  # facts of the released code


class Mosaic(nn.Module):
    """The smallest backbone: 16x16 pixels to a cell."""

    channels = 24

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, self.channels, 16, stride=16)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.cells(images / 255))


@pytest.mark.slow
def test_any_backbone_takes_a_convdet() -> None:
    detector = ConvDet(ConvDetConfig(backbone="own"), Mosaic()).eval()
    boxes, scores, _ = detector.decode(detector(scene()))
    assert boxes.shape == (1, 8 * 4 * 9, 4)
    assert float(scores.detach().max()) <= 1
    export(detector, (128, 64))
    with pytest.raises(ValueError, match="a module is given"):
        ConvDet(ConvDetConfig(), Mosaic())
    with pytest.raises(ValueError, match="a module is given"):
        ConvDet(ConvDetConfig(backbone="own"))
