"""The layout of the data changes nothing of what is learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from squeezedet.data.convert import convert
from squeezedet.data.dataset import Dataset, class_map_for, read_dataset
from squeezedet.data.sample import Sample
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training.batches import Examples, batches
from squeezedet.training.recipe import Recipe
from squeezedet.training.run_folder import Run
from squeezedet.training.trainer import Trainer

RECIPE = Recipe(steps=20, batch=2, shapes=((96, 64),), warmup=2, workers=0, amp=False)
LAYOUTS = ("voc", "coco", "yolo")


def whole_pixels(dataset: Dataset) -> Dataset:
    """Boxes that every layout can say exactly."""

    def rounded(sample: Sample) -> Sample:
        xyxy = sample.objects.xyxy.round().astype(np.float32)
        return replace(sample, objects=replace(sample.objects, xyxy=xyxy))

    splits = {name: tuple(map(rounded, split)) for name, split in dataset.splits.items()}
    return replace(dataset, splits=splits)


def curve(dataset: Dataset, folder: Path) -> list[float]:
    """The loss of each of 20 steps, and the norm of its gradient."""
    torch.manual_seed(1)
    detector = ConvDet(ConvDetConfig(size=(192, 96)))
    train = dataset.split("train")
    moves = {"van": "car", "person_sitting": "ignore"}
    known = {name: target for name, target in moves.items() if name in map(str.lower, dataset.types)}
    class_map = class_map_for(dataset, ("car", "pedestrian", "cyclist"), known)
    run = Run(folder=folder, train=train, val=(), class_map=class_map, recipe=RECIPE, quiet=True)
    trainer = Trainer(detector, run)
    steps = [trainer.learn(b) for b in batches(Examples(train, class_map), detector, RECIPE)]
    return [value for step in steps for value in step.values()]


@pytest.fixture(scope="module")
def kitti(scenes: Path) -> Dataset:
    return whole_pixels(read_dataset(scenes))


@pytest.fixture(scope="module")
def wanted(kitti: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return curve(kitti, tmp_path_factory.mktemp("kitti"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_copy_in_another_layout_trains_to_the_same_losses(
    kitti: Dataset, wanted: list[float], layout: str, tmp_path: Path
) -> None:
    convert(kitti, tmp_path / layout, layout)  # type: ignore[arg-type]
    copy = read_dataset(tmp_path / layout)
    for a, b in zip(kitti.split("train"), copy.split("train"), strict=True):
        assert np.array_equal(a.objects.xyxy, b.objects.xyxy)
    assert curve(copy, tmp_path) == pytest.approx(wanted, abs=1e-6, rel=1e-6)
