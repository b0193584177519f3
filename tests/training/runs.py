"""A run on drawn scenes, and the detector that it trains."""

from __future__ import annotations

from pathlib import Path

import torch

from squeezedet.data.dataset import read_split
from squeezedet.data.sample import KITTI_DEFAULT
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training.recipe import Recipe
from squeezedet.training.run_folder import Run


def new_run(folder: Path, scenes: Path, recipe: Recipe) -> Run:
    """A quiet run on the images of a KITTI folder."""
    return Run(
        folder=folder,
        train=read_split(scenes, "train"),
        val=read_split(scenes, "val"),
        class_map=KITTI_DEFAULT,
        recipe=recipe,
        quiet=True,
    )


def new_detector() -> ConvDet:
    """The same detector every time."""
    torch.manual_seed(1)
    return ConvDet(ConvDetConfig(size=(192, 96)))
