"""Every network of the papers is there, by its name and with its number of parameters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from squeezedet.errors import ModelError, UsageError
from squeezedet.models import registry
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezedet import SQUEEZEDET, widths
from squeezedet.runtime import bundle

from ..conftest import SLIM


@pytest.mark.parametrize("name", registry.NETWORKS)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        network = registry.build(name)
    assert sum(p.numel() for p in network.parameters()) == registry.NETWORKS[name].parameters
    assert isinstance(network, DetectionNetwork) == (registry.NETWORKS[name].task == "detect")
    kind = type(network).__dict__["kind"]
    assert isinstance(network, registry.class_of(kind))


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


def test_widths_are_checked() -> None:
    assert len(registry.SLIM_WIDTHS) == len(widths(SQUEEZEDET))
    assert registry.config_of("squeezedet-slim").widths == tuple(bundle.read_card(SLIM).training["config"]["widths"])
    with pytest.raises(ValueError, match="31 positive numbers"):
        registry.config_of("squeezedet", widths=(64, 16))
    with pytest.raises(ValueError, match="not vgg16's"):
        registry.config_of("vgg16-convdet", widths=registry.SLIM_WIDTHS)


OWN = """
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
class Mine(ConvDet):
    kind = "mine"
class Nameless(ConvDet):
    kind = "convdet"
"""


def test_a_network_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_network_77.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="'mine'"):
        registry.class_of("mine")  # a file may not name what the user has not
    network = registry.build("my_network_77:Mine", classes=("tram",))
    assert network.kind == "mine"
    assert registry.class_of("mine") is type(network)
    for name, why in (
        ("my_network_77:Nameless", "`kind` of its own"),
        ("my_network_77:ConvDetConfig", "subclass of DetectionNetwork"),
        ("my_network_77:Gone", "cannot be imported"),
        ("no_such_module_77:X", "cannot be imported"),
    ):
        with pytest.raises(UsageError, match=why):
            registry.find(name)
