"""Small runs on drawn scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squeezedet.data.scenes import write_folder
from squeezedet.models.squeezedet import ConvDet
from squeezedet.training.recipe import Recipe
from squeezedet.training.run_folder import Run

from .runs import new_detector, new_run

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
    amp=False,
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
        return new_run(tmp_path / folder, scenes, replace(SMALL, **changes))

    return make


@pytest.fixture
def small_detector() -> Callable[[], ConvDet]:
    """Makes the same detector every time."""
    return new_detector
