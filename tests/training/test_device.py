"""Training on any device: nothing stays on the processor, and little is copied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.fx.experimental._config as meta
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from squeezedet.errors import UsageError
from squeezedet.models import registry
from squeezedet.models.network import DetectionNetwork, Labels
from squeezedet.models.squeezedet import ConvDet
from squeezedet.training.batches import Examples, batches
from squeezedet.training.run_folder import Run
from squeezedet.training.trainer import Trainer, choose_device, half_precision

META = torch.device("meta")
NETWORKS: dict[str, dict[str, Any]] = {
    "squeezedet": {"size": (64, 64)},
    "squeezedet-slim": {"size": (64, 64), "loss_focal": 4.0},
    "squeezedet-plus": {"size": (64, 64)},
    "vgg16-convdet": {"size": (64, 64)},
    "resnet50-convdet": {"size": (64, 64)},
    "squeezedet-two-scale": {"size": (64, 64)},
    "tiny-ssd": {"size": (96, 80)},
    "yolo-v1": {"width": 0.02},
    "yolo-v1-local": {"width": 0.02},
    "tiny-yolo-v2": {"size": (64, 64), "width": 0.1},
    "faster-rcnn-alexnet": {
        "hidden": 16,
        "candidates": 32,
        "proposals": 8,
        "training_candidates": 32,
        "training_proposals": 8,
    },
}


def labels(size: tuple[int, int]) -> Labels:
    box = torch.tensor([[8.0, 8, 40, 40]])
    return Labels([box] * 2, [torch.tensor([0])] * 2, [torch.zeros(0, 4)] * 2, size)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_step_away_from_the_processor(name: str) -> None:
    """An operation of meta tensors with a tensor that was left behind is an error."""
    network = registry.build(name, **NETWORKS[name])
    assert isinstance(network, DetectionNetwork)
    rule = network.input_rule
    width, height = (rule.width, rule.height) if rule.fixed else (64, 64)
    targets = network.targets(labels((width, height)))
    network = network.to(META).train()
    images = torch.zeros(2, 3, height, width, dtype=torch.uint8, device=META)
    optimizer = torch.optim.AdamW(network.parameters())
    with meta.patch(meta_nonzero_assume_all_nonzero=True):
        terms = network.loss(network(images), targets.to(META))
        assert {term.device for term in terms.values()} == {META}
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        assert {t.device for t in network.decode(network(images))} == {META}


class Copies(TorchDispatchMode):
    """Counts tensors that go from the processor to the stand-in of a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Sequence[Any], args: Any = (), kwargs: Any = None) -> Any:
        answer = function(*args, **(kwargs or {}))
        if isinstance(answer, Tensor) and answer.device == META:
            given = [t for t in args if isinstance(t, Tensor) and t.dim()]
            self.count += any(t.device.type == "cpu" for t in given)
        return answer


class Counting(Trainer):
    """A trainer on the stand-in, which holds no numbers: counts how often they are read."""

    reads = 0

    def _read(self, numbers: Tensor) -> list[float]:
        self.reads += 1
        return [1.0] * len(numbers)


def test_a_step_copies_the_batch_once_and_reads_once(
    small_run: Callable[..., Run], small_detector: Callable[[], ConvDet]
) -> None:
    run = small_run(ema=0.9)
    detector = small_detector()
    (batch,) = list(batches(Examples(run.train, run.class_map), detector, replace(run.recipe, steps=1)))
    trainer = Counting(detector, run, device=META)
    with meta.patch(meta_nonzero_assume_all_nonzero=True), Copies() as copies:
        trainer.learn(batch)
    assert copies.count == 1 + len(fields(batch.targets))  # type: ignore[arg-type]
    assert trainer.reads == 1


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for name, why in (("cuda", "finds no GPU"), ("mps", "Apple"), ("tpu", "none of auto, cpu")):
        with pytest.raises(UsageError, match=why):
            choose_device(name)


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 1)
    assert choose_device("cuda:0") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="this machine has 2 of them"):
        choose_device("auto")


def test_older_gpus_get_float16_with_a_scaler(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda", 0)
    for capability, dtype in (((7, 5), torch.float16), ((9, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert half_precision(cuda) is dtype
    assert half_precision(cuda, wanted=False) is None
    assert half_precision(torch.device("mps")) is None
