"""Every network of the papers is there, by its name and with its number of parameters."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from squeezedet.detectors import zoo
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.detectors.squeezedet import SQUEEZEDET, scaled, widths
from squeezedet.errors import ModelError, UsageError


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        network = zoo.build(name)
    assert sum(p.numel() for p in network.parameters()) == zoo.NETWORKS[name].parameters
    assert isinstance(network, DetectionNetwork) == (zoo.NETWORKS[name].task == "detect")
    kind = type(network).__dict__["kind"]
    assert zoo.class_of(kind) is type(network)


def test_classes_change_the_outputs() -> None:
    one = zoo.build("squeezedet", classes=("tram",))
    assert sum(p.numel() for p in one.parameters()) == 2_082_120 - 2 * 9 * (768 * 9 + 1)


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(UsageError, match=r"did you mean squeezedet-plus\? There are: squeezedet,"):
        zoo.build("squeezedetplus")
    with pytest.raises(ModelError, match="no kind of network 'resnet'"):
        zoo.class_of("resnet")


def test_the_names_need_no_torch() -> None:
    code = "import sys, squeezedet.detectors.zoo; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_widths_are_those_of_the_layers() -> None:
    assert widths(SQUEEZEDET) == zoo.SQUEEZEDET_WIDTHS
    assert zoo.config_of("squeezedet-x0.75").widths == scaled(SQUEEZEDET, 0.75)
    with pytest.raises(ValueError, match="31 positive numbers"):
        zoo.config_of("squeezedet", widths=(64, 16))
    with pytest.raises(ValueError, match="not vgg16's"):
        zoo.config_of("vgg16-convdet", widths=zoo.SQUEEZEDET_WIDTHS)
