"""Retraining under masks and with shared weights, on a few drawn scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from squeezedet.compression import prune, share
from squeezedet.compression.pipeline import finetune
from squeezedet.compression.prune import kernel_values, kernels, uniform
from squeezedet.data.dataset import read_split
from squeezedet.data.sample import KITTI_DEFAULT
from squeezedet.data.scenes import write_folder
from squeezedet.errors import UsageError
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezedet import ConvDetConfig
from squeezedet.training.checkpoint import initialize
from squeezedet.training.recipe import Recipe
from squeezedet.training.run_folder import Run

STEPS = 3


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_folder(root, count=2, seed=5, width=96, height=64, val_fraction=0.0)
    return root


def run(scenes: Path, folder: Path) -> Run:
    recipe = Recipe(steps=STEPS, batch=1, warmup=0, shapes=((96, 64),), workers=0, amp=False, ema=0.5)
    return Run(
        folder=folder, train=read_split(scenes, "all"), val=(), class_map=KITTI_DEFAULT, recipe=recipe, quiet=True
    )


def detector() -> DetectionNetwork:
    return initialize("convdet", ConvDetConfig(size=(96, 64))).detector


def test_pruned_weights_stay_zero_and_a_run_resumes(scenes: Path, tmp_path: Path) -> None:
    def begin() -> tuple[DetectionNetwork, prune.Schedule]:
        net = detector()
        schedule = prune.Schedule(uniform(net, 0.2), ramp=2)
        schedule.begin(net)
        return net, schedule

    net, schedule = begin()
    before = kernel_values(detector())
    finetune(net, run(scenes, tmp_path / "a"), lambda step: schedule.update(net, step))
    prune.remove(net)
    whole = kernel_values(net)
    for name, value in whole.items():
        if name in schedule.density:
            assert np.count_nonzero(value) == round(0.2 * value.size)
    assert not np.array_equal(whole["backbone.conv1"], before["backbone.conv1"])

    net, schedule = begin()
    half = run(scenes, tmp_path / "b")

    def stop(step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt
        schedule.update(net, step)

    often = replace(half, recipe=replace(half.recipe, checkpoint_every_s=0.0))
    with pytest.raises(KeyboardInterrupt):
        finetune(net, often, stop)
    again, _ = begin()
    with pytest.raises(UsageError, match="continue it with `resume`"):
        finetune(again, half, lambda step: None)
    net, schedule = begin()
    finetune(net, half, lambda step: schedule.update(net, step), resume=True)
    prune.remove(net)
    for name, value in kernel_values(net).items():
        np.testing.assert_array_equal(value, whole[name])


def test_shared_weights_stay_shared(scenes: Path, tmp_path: Path) -> None:
    net = detector()
    prune.prune(net, uniform(net, 0.3))
    found = {name: share.cluster(kernel, 3) for name, kernel in kernel_values(net).items()}
    share.parametrize_centroids(net, found)
    finetune(net, run(scenes, tmp_path), lambda step: None)
    prune.remove(net)
    assert all(type(layer) is torch.nn.Conv2d for layer in kernels(net).values())
    changed = 0
    for name, value in kernel_values(net).items():
        assert len(np.unique(value[value != 0])) <= 8
        assert not value[found[name].codes == 0].any()
        changed += not np.array_equal(value, found[name].weight())
    assert changed == len(found)
