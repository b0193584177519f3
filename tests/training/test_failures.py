"""What goes wrong in the middle of a run is one sentence, and costs nothing."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from squeezedet.data.sample import Sample
from squeezedet.errors import DataError, SqueezeDetError
from squeezedet.models.squeezedet import ConvDet
from squeezedet.training import batches as examples_module
from squeezedet.training import checkpoint
from squeezedet.training.batches import Examples, batches
from squeezedet.training.loop import run_training as train
from squeezedet.training.run_folder import Run

Runs = Callable[..., Run]
Detectors = Callable[[], ConvDet]


def equal(a: Path, b: Path) -> bool:
    one, other = (checkpoint.read(path).tensors for path in (a, b))
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_decoded(
    small_run: Runs, small_detector: Detectors, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    """It is met at step 3: named, the run saved; mended, the run ends as if nothing had been."""
    monkeypatch.setattr(examples_module, "CACHE_BYTES", 0)
    run = small_run(steps=5, validate_every=100, workers=workers)
    examples = Examples(run.train, run.class_map)
    met = [batch.ids[0] for batch in batches(examples, small_detector(), run.recipe)]
    bad = next(name for name in met[3:] if name not in met[:3])
    whole, copy = next(s for s in run.train if s.id == bad), tmp_path / f"{bad}.png"
    copy.write_bytes(whole.image.read_bytes()[:3000])
    samples: list[Sample] = [s if s.id != bad else replace(s, image=copy) for s in run.train]
    broken = replace(run, train=samples)
    with pytest.raises(DataError, match=rf"{bad}\.png.*saved after step 3: mend the image") as said:
        train(small_detector(), broken)
    assert "\n" not in str(said.value)
    assert checkpoint.read(run.last).metadata["step"] == 3
    shutil.copyfile(whole.image, copy)
    train(small_detector(), broken, resume=True)
    train(small_detector(), replace(run, folder=tmp_path / "whole"))
    assert equal(run.last, tmp_path / "whole" / "last.safetensors")


def test_a_full_disk_leaves_the_old_checkpoint(small_run: Runs, small_detector: Detectors, tmp_path: Path) -> None:
    """No file may grow beyond a megabyte while the run goes on: the checkpoint is larger."""
    run = small_run(checkpoint_every_s=0.0, validate_every=100)
    half = replace(run, recipe=replace(run.recipe, steps=4))
    train(small_detector(), half)
    before = run.last.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run.folder.joinpath("best.safetensors").unlink(missing_ok=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(SqueezeDetError, match=r"last\.safetensors: cannot be written") as said:
            train(small_detector(), half, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(said.value)
    assert run.last.read_bytes() == before
    assert not list(run.folder.glob(".*"))
    train(small_detector(), half, resume=True)


def test_a_process_that_is_gone(small_run: Runs, small_detector: Detectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Examples, "__getitem__", lambda self, index: os._exit(9))
    run = small_run(workers=1)
    with pytest.raises(SqueezeDetError, match="a process that prepares images has died") as said:
        next(iter(batches(Examples(run.train, run.class_map), small_detector(), run.recipe)))
    assert "\n" not in str(said.value)
