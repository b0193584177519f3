"""What holds for every YOLO: loss, darknet's files, export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from squeezedet.models.network import Labels
from squeezedet.papers.darknet import DarknetDetector, load_weights

from ..models.exported import largest_difference
from . import test_tiny_yolo_v2, test_yolo_v1
from .weights_file import write_weights

NO_BOXES, NO_CLASSES = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


@pytest.fixture(params=["fcdet", "local", "tiny"])
def network(request: pytest.FixtureRequest) -> DarknetDetector:
    if request.param == "tiny":
        return test_tiny_yolo_v2.small()
    return test_yolo_v1.small(test_yolo_v1.SMALL_LOCAL if request.param == "local" else test_yolo_v1.SMALL)


def pixels(network: DarknetDetector, count: int = 2) -> torch.Tensor:
    rule = network.input_rule
    return torch.randint(0, 256, (count, 3, rule.height, rule.width), dtype=torch.uint8)


def labels(network: DarknetDetector, boxes: list[torch.Tensor], classes: list[torch.Tensor]) -> Labels:
    return Labels(boxes, classes, [NO_BOXES] * 2, (network.input_rule.width, network.input_rule.height))


def test_a_batch_without_objects_is_finite(network: DarknetDetector) -> None:
    targets = network.targets(labels(network, [NO_BOXES] * 2, [NO_CLASSES] * 2))
    total = sum(network.loss(network(pixels(network)), targets).values())
    assert torch.isfinite(total)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_loss_falls_on_one_batch(network: DarknetDetector) -> None:
    images = pixels(network)
    boxes = [torch.tensor([[20.0, 50, 200, 150], [150, 10, 180, 60]]), NO_BOXES]
    targets = network.targets(labels(network, boxes, [torch.tensor([0, 1]), NO_CLASSES]))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3 if network.kind == "tiny-yolo-v2" else 5e-4)
    losses = []
    for _ in range(15):
        loss = sum(network.loss(network(images), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@torch.inference_mode()
def test_darknet_file_round_trip(tmp_path: Path, network: DarknetDetector) -> None:
    network, other = network.eval(), type(network)(network.config).eval()
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    write_weights(tmp_path / "yolo.weights", network)
    load_weights(other, tmp_path / "yolo.weights")
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(other.state_dict()[name], tensor), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own deprecations
def test_onnx_answers_as_torch(network: DarknetDetector) -> None:
    assert largest_difference(network, pixels(network, 1)) < 1e-4
