"""Every network of the papers is there, by its name and with its number of parameters."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from squeezedet.errors import ModelError, UsageError
from squeezedet.models import registry
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezedet import SQUEEZEDET, widths
from squeezedet.runtime import bundle


@pytest.mark.parametrize("name", registry.NETWORKS)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        network = registry.build(name)
    assert sum(p.numel() for p in network.parameters()) == registry.NETWORKS[name].parameters
    assert isinstance(network, DetectionNetwork) == (registry.NETWORKS[name].task == "detect")
    kind = type(network).__dict__["kind"]
    assert registry.class_of(kind) is type(network)


def test_classes_change_the_outputs() -> None:
    one = registry.build("squeezedet", classes=("tram",))
    assert sum(p.numel() for p in one.parameters()) == 2_082_120 - 2 * 9 * (768 * 9 + 1)


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(UsageError, match=r"did you mean squeezedet-plus\? There are: squeezedet,"):
        registry.build("squeezedetplus")
    with pytest.raises(ModelError, match="no kind of network 'resnet'"):
        registry.class_of("resnet")


def test_the_names_need_no_torch() -> None:
    code = "import sys, squeezedet.models.registry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_widths_are_those_of_the_layers() -> None:
    assert widths(SQUEEZEDET) == registry.SQUEEZEDET_WIDTHS
    assert registry.config_of("squeezedet-slim").widths == tuple(
        bundle.read_card(bundle.find("street")).training["config"]["widths"]
    )
    with pytest.raises(ValueError, match="31 positive numbers"):
        registry.config_of("squeezedet", widths=(64, 16))
    with pytest.raises(ValueError, match="not vgg16's"):
        registry.config_of("vgg16-convdet", widths=registry.SQUEEZEDET_WIDTHS)
