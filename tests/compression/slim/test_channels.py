"""Channels go, and what is left computes what the wide network does with them at zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from squeezedet.compression.slim import chain, narrowed
from squeezedet.errors import UsageError
from squeezedet.models import registry
from squeezedet.models.squeezedet import SQUEEZEDET, ConvDet, ConvDetConfig, widths
from squeezedet.training.checkpoint import initialize


@pytest.fixture(scope="module")
def wide() -> ConvDet:
    detector = initialize("convdet", ConvDetConfig(size=(128, 64)), seed=4).detector
    assert isinstance(detector, ConvDet)
    torch.nn.init.normal_(detector.convdet.weight, std=0.01)
    for name, bias in detector.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(bias, std=0.1)
    return detector.eval()


def test_the_narrow_network_is_the_wide_one_with_channels_at_zero(wide: ConvDet) -> None:
    rng = np.random.default_rng(5)
    kept, zeroed = {}, ConvDet(wide.config).eval()
    zeroed.load_state_dict(wide.state_dict())
    for reader in chain(wide)[:-1]:
        weight = zeroed.get_parameter(f"{reader.name}.weight")
        count = len(weight)
        stays = np.sort(rng.choice(count, count // 2, replace=False))
        gone = np.setdiff1d(np.arange(count), stays)
        with torch.no_grad():
            weight[gone] = 0
            zeroed.get_parameter(f"{reader.name}.bias")[gone] = 0
        kept[reader.name] = stays
    narrow = narrowed(wide, kept)
    images = torch.randint(0, 256, (2, 3, 64, 128))
    with torch.inference_mode():
        expected, found = zeroed(images), narrow(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert narrow.config.widths == tuple(c // 2 for c in widths(SQUEEZEDET))


def test_what_is_not_named_stays(wide: ConvDet) -> None:
    narrow = narrowed(wide, {})
    for name, tensor in wide.state_dict().items():
        assert torch.equal(narrow.state_dict()[name], tensor)


def test_a_layer_cannot_go(wide: ConvDet) -> None:
    with pytest.raises(UsageError, match=r"conv1: one channel at least"):
        narrowed(wide, {"backbone.conv1": np.empty(0, np.intp)})


def test_only_squeezedet_has_such_channels() -> None:
    with torch.device("meta"):
        network = registry.build("tiny-ssd")
    with pytest.raises(UsageError, match="not tiny-ssd"):
        chain(network)  # type: ignore[arg-type]
