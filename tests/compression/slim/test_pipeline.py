"""A real network is weighed, timed and cut; what comes out trains on with the wide one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from squeezedet.compression.slim import importance, slim_network
from squeezedet.data.dataset import read_split
from squeezedet.data.sample import KITTI_DEFAULT, ClassMap
from squeezedet.data.scenes import write_folder
from squeezedet.errors import DataError
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training.batches import Examples, batches
from squeezedet.training.checkpoint import initialize, read_detector
from squeezedet.training.recipe import default_for


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_folder(root, count=4, seed=3, width=192, height=96, val_fraction=0.25)
    return root


@pytest.fixture(scope="module")
def wide() -> ConvDet:
    detector = initialize("convdet", ConvDetConfig(size=(192, 96)), seed=4).detector
    assert isinstance(detector, ConvDet)
    return detector.eval()


def test_a_dead_channel_is_worth_nothing(scenes: Path, wide: ConvDet) -> None:
    network = ConvDet(wide.config).eval()
    network.load_state_dict(wide.state_dict())
    with torch.no_grad():
        network.get_parameter("backbone.fire5.expand3x3.weight")[7] = 0
        network.get_parameter("backbone.fire5.expand3x3.bias")[7] = 0
    recipe = replace(default_for(network), steps=1, batch=2, workers=0)
    samples = Examples(read_split(scenes, "train"), KITTI_DEFAULT)
    worth = importance(network, ["backbone.fire5.expand3x3"], batches(samples, network, recipe, 0))
    found = worth["backbone.fire5.expand3x3"]
    assert found.shape == (128,)
    assert found[7] == 0
    assert (found > 0).sum() > 100
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.slow
def test_a_network_is_cut_and_written(scenes: Path, wide: ConvDet, tmp_path: Path) -> None:
    samples = read_split(scenes, "train")
    made = slim_network(wide, samples, KITTI_DEFAULT, speed_up=2, batches=1, threads=1)
    assert made.guessed_ms <= made.before_ms / 2
    assert {row.name for row in made.rows} >= {"backbone.conv1", "convdet"}
    assert sum(row.ms for row in made.rows) == pytest.approx(made.before_ms)
    path = tmp_path / "slim.safetensors"
    made.write(path)
    network, _ = read_detector(path)
    assert network.config.widths == made.network.config.widths
    assert sum(p.numel() for p in network.parameters()) == made.parameters < 2_082_120


def test_other_classes_are_an_error(scenes: Path, wide: ConvDet) -> None:
    with pytest.raises(DataError, match="the network detects car, pedestrian, cyclist"):
        slim_network(wide, read_split(scenes, "train"), ClassMap(("sign",)), speed_up=2)
