"""Training teaches: from random weights, in a minute or two on two cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from squeezedet.data.anchors import ANCHORS_A
from squeezedet.data.dataset import read_split
from squeezedet.data.sample import KITTI_DEFAULT
from squeezedet.data.scenes import write_folder
from squeezedet.models.squeezedet import ConvDetConfig
from squeezedet.training.checkpoint import initialize, read_detector
from squeezedet.training.loop import run_training as train
from squeezedet.training.recipe import Recipe
from squeezedet.training.run_folder import Run
from squeezedet.training.validate import validate

# A third of KITTI's size, with anchors to match.
WIDTH, HEIGHT = 416, 128
ANCHORS = tuple((round(w / 3), round(h / 3)) for w, h in ANCHORS_A)
RECIPE = Recipe(
    steps=1200,
    batch=8,
    learning_rate=1e-3,
    warmup=50,
    ema=0.99,
    frozen=(),
    shapes=((288, 112),),
    scale=(0.8, 1.25),
    color=0.3,
    balance=0.0,
    validate_every=200,
)


@pytest.mark.slow
def test_a_detector_learns_drawn_cars(tmp_path: Path) -> None:
    """AP above 0.5 for cars on drawn scenes it never saw."""
    root = tmp_path / "scenes"
    write_folder(root, count=240, seed=1000, width=WIDTH, height=HEIGHT, val_fraction=0.15)
    run = Run(
        folder=tmp_path / "run",
        train=read_split(root, "train"),
        val=read_split(root, "val"),
        class_map=KITTI_DEFAULT,
        recipe=RECIPE,
    )
    start = ConvDetConfig(anchors=ANCHORS, size=(WIDTH, HEIGHT), dropout=0.0)
    train(initialize("convdet", start).detector, run)
    detector, _ = read_detector(run.folder / "last.safetensors")
    car = validate(detector, run.val, KITTI_DEFAULT).result.results["car"]
    assert car is not None
    assert car["moderate"].ap40 > 0.5
