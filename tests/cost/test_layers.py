from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from squeezedet.cost.layers import MIB, Cost, count
from squeezedet.models import registry
from squeezedet.models.profile import trace

PAPER = (1242, 375)
SLOW = pytest.mark.slow  # a loop over 300 regions is traced
SIXTEEN = tuple((16 + k, 16 + k) for k in range(16))


def weigh(name: str, size: tuple[int, int] = PAPER, counting: Any = "module", **changes: Any) -> Cost:
    """A network in the paper's geometry."""
    with torch.device("meta"):
        network = registry.build(name, geometry="paper", size=size, **changes)
    return count(trace(network, (1, 3, size[1], size[0])), counting)


def figures(cost: Cost) -> tuple[int, str, str, str]:
    """Parameters, MiB, 10^9 FLOPs of the paper's counter, MiB of activations."""
    return (
        cost.parameters,
        f"{cost.size_bytes / MIB:.3f}",
        f"{cost.flops_paper / 1e9:.3f}",
        f"{cost.activation_bytes / MIB:.2f}",
    )


def test_squeezedet_weighs_what_the_paper_counts() -> None:
    cost = weigh("squeezedet")
    assert figures(cost) == (2_082_120, "7.943", "9.714", "117.22")
    assert (cost.macs, cost.flops) == (4_818_116_352, 9_636_232_704)
    assert cost.by_counting == dict.fromkeys(cost.by_counting, 2_082_120)  # no batch norm
    assert sum(layer.parameters for layer in cost.layers) == cost.parameters


@pytest.mark.parametrize(
    ("size", "flops", "activations"),
    [((1863, 562), "22.450", "266.14"), ((1863, 563), "22.476", "267.01"), ((931, 281), "5.330", "65.05")],
)
def test_squeezedet_at_other_sizes(size: tuple[int, int], flops: str, activations: str) -> None:
    assert figures(weigh("squeezedet", size)) == (2_082_120, "7.943", flops, activations)


def test_sixteen_anchors() -> None:
    cost = weigh("squeezedet", anchors=SIXTEEN)
    assert figures(cost) == (2_469_248, "9.419", "11.009", "117.58")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("squeezedet-plus", (7_021_640, "26.785", "77.246", "252.62")),
        ("vgg16-convdet", (15_046_536, "57.398", "288.421", "540.44")),
        ("resnet50-convdet", (9_191_624, "35.063", "61.284", "368.96")),
    ],
)
def test_the_other_convdet_networks(name: str, expected: tuple[int, str, str, str]) -> None:
    assert figures(weigh(name, counting="paper")) == expected


ZOO = [  # network, size, counting, parameters, MACs, MACs with batch norm
    ("squeezenet-1.0", (227, 227), "module", 1_248_424, 861_339_936, 0),
    ("squeezenet-1.1", (227, 227), "module", 1_235_496, 387_747_520, 0),
    ("squeezenet-1.1", (224, 224), "module", 1_235_496, 349_151_936, 0),
    ("squeezenet-1.0-complex", (227, 227), "module", 1_589_672, 1_212_625_184, 0),
    ("tiny-ssd", (300, 300), "layers", 1_132_764, 570_814_191, 571_092_371),
    ("tiny-ssd", (300, 300), "module", 1_134_272, 570_814_191, 571_092_371),
    ("yolo-v1", (448, 448), "module", 271_703_550, 20_285_153_280, 0),
    ("yolo-v1-local", (448, 448), "stored", 197_328_243, 20_210_729_728, 0),
    ("tiny-yolo-v2", (416, 416), "stored", 15_867_885, 3_485_520_896, 0),
    pytest.param("faster-rcnn-vgg16", PAPER, "module", 136_729_994, 183_754_237_056, 0, marks=SLOW),
    pytest.param("faster-rcnn-alexnet", PAPER, "module", 57_554_122, 24_233_572_416, 0, marks=SLOW),
]


@pytest.mark.parametrize(("name", "size", "counting", "parameters", "macs", "with_norm"), ZOO)
def test_the_other_networks(
    name: str, size: tuple[int, int], counting: Any, parameters: int, macs: int, with_norm: int
) -> None:
    with torch.device("meta"):
        network = registry.build(name)
    cost = count(trace(network, (1, 3, size[1], size[0])), counting)
    assert (cost.parameters, cost.macs) == (parameters, macs)
    assert with_norm in (0, cost.macs + cost.norm_elements)


# ----------------------------------------------------------------- conventions


def conv_counted(module: nn.Module, *shape: int, counting: Any = "module") -> Cost:
    return count(trace(module, shape), counting)


def test_each_convention_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)
    )
    cost = conv_counted(net, 1, 3, 10, 12)
    assert [layer.kind for layer in cost.layers] == ["conv+norm+relu", "pool", "conv"]
    first, pool, last = cost.layers
    assert first.output == (8, 8, 10) and pool.output == (8, 4, 5) and last.output == (4, 4, 5)
    assert first.macs == 27 * 8 * 80 and last.macs == 8 * 4 * 20 and pool.macs == 0
    assert first.flops_paper == (2 * 27 + 1) * 640 + 2 * 640  # a bias, though there is none
    assert last.flops_paper == (2 * 8 + 1) * 80  # no ReLU
    assert cost.activation_bytes == 4 * (360 + 640 + 160 + 80)  # norm and ReLU are not again
    assert cost.norm_elements == 640
    assert first.moved_bytes == 4 * (360 + 216 + 16 + 640)
    assert first.intensity == pytest.approx(2 * first.macs / first.moved_bytes)
    assert cost.by_counting == {
        "module": 216 + 16 + 36,
        "stored": 216 + 32 + 36,
        "layers": 216 + 36,
        "paper": 216 + 8 + 36,
    }
    assert conv_counted(net, 1, 3, 10, 12, counting="paper").layers[0].parameters == 224


def test_a_relu_counts_behind_a_concatenation_and_not_behind_a_sum() -> None:
    class Fire(nn.Module):
        def __init__(self, add: bool) -> None:
            super().__init__()
            self.one, self.two, self.add = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1), add

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.one(x), self.two(x)
            return F.relu(a + b if self.add else torch.cat([a, b], 1))

    joined, added = (conv_counted(Fire(add), 1, 2, 5, 5) for add in (False, True))
    assert joined.flops_paper == 2 * (2 * 2 + 1 + 2) * 100
    assert added.flops_paper == 2 * (2 * 2 + 1) * 100


def test_shared_weights_count_once_and_work_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)
            self.unused = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(F.relu(self.conv(x)))  # type: ignore[no-any-return]

    for counting, unused in (("module", 12), ("paper", 0)):
        cost = conv_counted(Twice(), 1, 2, 5, 5, counting=counting)
        assert cost.parameters == 6 + unused
        assert [layer.parameters for layer in cost.layers] == [6, 0]
        assert [layer.name for layer in cost.layers] == ["conv", "conv_2"]
        assert cost.macs == 2 * 100


# ------------------------------------------------ agreement with torch's counter


class Bilinear(nn.Module):
    """A product with weights over each place (locally connected), and one of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(16, 3, 5))

    def forward(self, x: Tensor) -> Tensor:
        places = torch.bmm(x.flatten(2).permute(2, 0, 1), self.weight)
        return places[:, 0] @ places[:, 0].t()


SMALL: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "strided": (nn.Conv2d(3, 8, 5, stride=3, padding=1), (1, 3, 17, 23)),
    "dilated": (nn.Conv2d(3, 8, 3, dilation=2), (1, 3, 17, 23)),
    "grouped": (nn.Conv2d(8, 12, 3, groups=4), (1, 8, 9, 9)),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8, bias=False), (1, 8, 9, 9)),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2), (1, 6, 5, 7)),
    "transposed, grouped": (nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2), (1, 6, 5, 7)),
    "one dimension": (nn.Conv1d(4, 6, 3), (1, 4, 20)),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU()), (1, 3, 2, 2)),
    "linear, no bias": (nn.Linear(12, 7, bias=False), (1, 5, 12)),
    "products": (Bilinear(), (1, 3, 4, 4)),
}


@pytest.mark.parametrize("name", SMALL)
def test_flops_are_those_of_torchs_counter(name: str) -> None:
    module, shape = SMALL[name]
    with FlopCounterMode(display=False) as counter:
        module.eval()(torch.zeros(shape))
    cost = conv_counted(module, *shape)
    assert cost.flops == counter.get_total_flops() > 0
    assert cost.by_counting["layers"] == sum(p.numel() for p in module.parameters())
    missing_biases = cost.by_counting["paper"] - cost.by_counting["layers"]
    assert missing_biases == {"depthwise": 8, "linear, no bias": 7, "products": 80}.get(name, 0)


def test_flops_of_squeezedet_are_those_of_torchs_counter() -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = registry.build("squeezedet").eval()
        network(torch.zeros(1, 3, 384, 1248))
    assert count(trace(network, (1, 3, 384, 1248))).flops == counter.get_total_flops()
