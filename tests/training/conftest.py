"""Small runs on drawn scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from squeezedet.data.kitti import read_folder
from squeezedet.data.sample import KITTI_DEFAULT
from squeezedet.data.synthetic import write_folder
from squeezedet.detectors.convdet import ConvDet, ConvDetConfig
from squeezedet.training.recipe import Recipe
from squeezedet.training.run import Run

# Only ConvDet learns: its checkpoints are small.
SMALL = Recipe(
    steps=4,
    batch=1,
    frozen=("backbone.*",),
    shapes=((96, 64),),
    warmup=0,
    ema=0.9,
    balance=0.0,
    validate_every=2,
    workers=0,
    bf16=False,
)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A KITTI folder: four images to learn from, two to judge by."""
    root = tmp_path_factory.mktemp("scenes")
    write_folder(root, count=6, seed=3, width=192, height=96, val_fraction=0.34)
    return root


@pytest.fixture
def small_run(scenes: Path, tmp_path: Path) -> Callable[..., Run]:
    """Makes a run; words change its recipe, ``folder`` says where it goes."""

    def make(folder: str = "run", **changes: Any) -> Run:
        return Run(
            folder=tmp_path / folder,
            train=read_folder(scenes, "train"),
            val=read_folder(scenes, "val"),
            class_map=KITTI_DEFAULT,
            recipe=replace(SMALL, **changes),
            quiet=True,
        )

    return make


@pytest.fixture
def small_detector() -> Callable[[], ConvDet]:
    """Makes the same detector every time."""

    def make() -> ConvDet:
        torch.manual_seed(1)
        return ConvDet(ConvDetConfig(size=(192, 96)))

    return make
