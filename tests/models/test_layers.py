"""Networks without their batch normalisation answer as they did."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from squeezedet.models.backbones import FrozenBatchNorm
from squeezedet.models.layers import fold
from squeezedet.models.network import DetectionNetwork, Labels
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.models.tiny_ssd import TinySSD, TinySSDConfig
from squeezedet.papers.tiny_yolo_v2 import TinyYoloV2, TinyYoloV2Config

SIZE = (96, 96)


def learnt(network: DetectionNetwork) -> DetectionNetwork:
    """The network with statistics as training leaves them, in float64."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm):
            nn.init.normal_(module.bias, std=0.1)
            nn.init.uniform_(module.weight, 0.3, 1.5)
            for name, buffer in module.named_buffers():
                if "var" in name:
                    buffer.uniform_(0.2, 3)
                elif "mean" in name:
                    buffer.normal_(std=0.3)
    return network.double().eval()


def answers(network: DetectionNetwork, images: Tensor) -> tuple[Tensor, ...]:
    raw = network(images)
    return raw if isinstance(raw, tuple) else (raw,)


@torch.inference_mode()
@pytest.mark.parametrize(
    "network",
    [
        TinySSD(TinySSDConfig(size=SIZE)),
        TinyYoloV2(TinyYoloV2Config(size=SIZE, width=0.1)),
        ConvDet(ConvDetConfig(backbone="resnet50", size=SIZE)),
    ],
    ids=lambda network: network.kind,
)
def test_folding_changes_nothing(network: DetectionNetwork) -> None:
    learnt(network)
    images = torch.randint(0, 256, (1, 3, *SIZE)).double()
    wanted = answers(network, images)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for other in (network.folded(), network.folded().folded(), network.fused()):
        assert not any(isinstance(m, nn.BatchNorm2d | FrozenBatchNorm) for m in other.modules())
        for one, two in zip(answers(other, images), wanted, strict=True):
            assert torch.allclose(one, two, rtol=1e-6, atol=1e-6 * float(two.abs().max()))
    names = {name for name, _ in network.named_modules()}
    assert {name for name, _ in network.folded().named_modules()} <= names
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_takes_a_factor_and_an_addend(bias: bool) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 3, padding=1, bias=bias)
    x, scale, shift = torch.randn(2, 3, 5, 5), torch.randn(4), torch.randn(4)
    wanted = convolution(x) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    fold(convolution, scale.double(), shift.double())
    assert torch.allclose(convolution(x), wanted, atol=1e-6)


def test_a_folded_network_learns() -> None:
    network = TinySSD(TinySSDConfig(size=SIZE)).folded().train()
    targets = network.targets(
        Labels([torch.tensor([[9.0, 9, 60, 60]])], [torch.tensor([3])], [torch.zeros(0, 4)], SIZE)
    )
    loss = torch.stack(list(network.loss(network(torch.zeros(1, 3, *SIZE)), targets).values()))
    loss.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
