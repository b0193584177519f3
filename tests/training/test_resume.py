"""kill -9 at any moment: the run that goes on ends as one that was left alone."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from squeezedet.data.scenes import write_folder
from squeezedet.errors import ModelError
from squeezedet.models.squeezedet import ConvDet
from squeezedet.training import checkpoint
from squeezedet.training.loop import Reporter
from squeezedet.training.loop import run_training as train
from squeezedet.training.run_folder import Run
from squeezedet.training.trainer import Trainer

KILLS = 5


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return dict(checkpoint.read(path).tensors)


def same(a: Path, b: Path) -> bool:
    one, other = tensors(a), tensors(b)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def log(folder: Path) -> list[dict[str, str]]:
    """The rows of the log but for the speed, which is another every time."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "images_per_s"} for row in rows]


def test_two_runs_of_one_seed_are_equal(small_run: Callable[..., Run], small_detector: Callable[[], ConvDet]) -> None:
    for folder, workers in (("a", 0), ("b", 2)):
        train(small_detector(), small_run(folder, workers=workers))
    a, b = small_run("a"), small_run("b")
    assert same(a.last, b.last)
    assert same(a.best, b.best)
    assert log(a.folder) == log(b.folder)


@pytest.mark.slow
def test_a_power_cut_between_two_steps(
    small_run: Callable[..., Run], small_detector: Callable[[], ConvDet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log, too, is what it would have been, wherever between checkpoint and report it was."""
    recipe = {"early_stop": 9, "early_images": 2, "steps": 2}
    whole = small_run("whole", **recipe)
    train(small_detector(), whole)
    for owner, when in ((Reporter, "begin"), (Reporter, "report"), (Trainer, "evaluate")):
        cut = small_run(when, **recipe)
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
            patch.setattr(owner, when, lambda *_: (_ for _ in ()).throw(RuntimeError("power cut")))
            train(small_detector(), cut)
        train(small_detector(), cut, resume=True)
        assert same(whole.last, cut.last)
        assert same(whole.best, cut.best)
        assert log(whole.folder) == log(cut.folder)
        assert checkpoint.read(whole.last).metadata == checkpoint.read(cut.last).metadata


def test_what_is_no_state(small_run: Callable[..., Run], small_detector: Callable[[], ConvDet]) -> None:
    run = small_run(steps=1)
    train(small_detector(), run)
    saved = checkpoint.read(run.last)
    lost = {k: v for k, v in saved.tensors.items() if k != "model.convdet.bias"}
    checkpoint.write(run.last, lost, saved.metadata)
    with pytest.raises(ModelError, match="no complete state of a run"):
        train(small_detector(), run, resume=True)
    checkpoint.write(run.last, saved.tensors, {**saved.metadata, "recipe": {}})
    with pytest.raises(ModelError, match="does not say how the run was made"):
        train(small_detector(), replace(run), resume=True)


@pytest.mark.slow
def test_kill_at_any_moment(tmp_path: Path) -> None:
    """A checkpoint at every step, two workers, and SIGKILL at random, also while it is written."""
    data = tmp_path / "scenes"
    write_folder(data, count=6, seed=3, width=192, height=96, val_fraction=0.34)
    base = [sys.executable, "-m", "squeezedet", "train", "--data", str(data), "--steps", "24"]
    base += ["--batch", "2", "--size", "192x96", "--quiet", "--threads", "1", "--workers", "2"]
    base += ["--checkpoint-every", "0", "--validate-every", "8", "--early-stop", "9"]
    subprocess.run([*base, "--out", str(tmp_path / "whole")], check=True)
    rng = random.Random(5)
    killed = tmp_path / "killed"
    resume: list[str] = []
    for _ in range(KILLS):
        victim = subprocess.Popen([*base, "--out", str(killed), *resume])
        _wait_for_a_new_checkpoint(killed / "last.safetensors", victim)
        time.sleep(rng.uniform(0, 0.4))
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        checkpoint.read(killed / "last.safetensors")  # whole, whenever it was
        resume = ["--resume"]
    subprocess.run([*base, "--out", str(killed), "--resume"], check=True)
    assert same(tmp_path / "whole" / "last.safetensors", killed / "last.safetensors")
    assert same(tmp_path / "whole" / "best.safetensors", killed / "best.safetensors")
    assert log(tmp_path / "whole") == log(killed)
    assert not list(killed.glob(".*"))


def _wait_for_a_new_checkpoint(path: Path, victim: subprocess.Popen[bytes]) -> None:
    before = path.stat().st_mtime_ns if path.exists() else 0
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and victim.poll() is None:
        if path.exists() and path.stat().st_mtime_ns > before:
            return
        time.sleep(0.01)
    assert victim.poll() is not None, "no checkpoint came"
