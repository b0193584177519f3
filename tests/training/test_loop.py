"""The training loop on real batches of drawn scenes."""

from __future__ import annotations

import csv
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from squeezedet.errors import ModelError, UsageError
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training import checkpoint
from squeezedet.training.batches import Examples, batches, epoch_order
from squeezedet.training.loop import Progress
from squeezedet.training.loop import run_training as train
from squeezedet.training.recipe import Recipe
from squeezedet.training.trainer import DivergedError, RunningMeans, Trainer

from .runs import new_detector, new_run

TINY = Recipe(
    steps=4, batch=2, frozen=("backbone.conv1",), shapes=((96, 64),), warmup=0, validate_every=2, workers=0, amp=False
)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(checkpoint.read(folder / "last.safetensors").tensors)


def test_a_run_leaves_log_and_checkpoints(tmp_path: Path, scenes: Path) -> None:
    best = train(new_detector(), new_run(tmp_path, scenes, TINY))
    assert best == tmp_path / "best.safetensors"
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert {"class", "object", "background", "box", "iou", "ap40_car"} <= rows[0].keys()
    detector, saved = checkpoint.read_detector(best)
    assert saved.metadata["validation"]["protocol"] == "kitti"
    assert not detector.training


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_is_exact(tmp_path: Path, scenes: Path, workers: int) -> None:
    """Stop after two steps and continue: the weights are those of one run, bit for bit."""
    recipe = replace(TINY, workers=workers)
    train(new_detector(), new_run(tmp_path / "whole", scenes, recipe))
    parts = new_run(tmp_path / "parts", scenes, recipe)
    trainer = Trainer(new_detector(), parts)
    examples = Examples(parts.train, parts.class_map)
    for first in range(2):
        batch = next(iter(batches(examples, trainer.detector, recipe, first)))
        trainer.learn(batch)
    trainer.save()
    train(new_detector(), parts, resume=True)
    whole, resumed = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_between_steps_and_resume_is_exact(
    tmp_path: Path, scenes: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes in the middle of step 3, when the weights have changed but not the state."""
    train(new_detector(), new_run(tmp_path / "whole", scenes, TINY))
    stopped = new_run(tmp_path / "stopped", scenes, TINY)
    step = torch.optim.AdamW.step

    def step_with_signal(self: torch.optim.AdamW, *more: object) -> object:
        answer = step(self, *more)
        if len(self.state) and max(int(v["step"]) for v in self.state.values()) == 3:
            os.kill(os.getpid(), number)
        return answer

    monkeypatch.setattr(torch.optim.AdamW, "step", step_with_signal)
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), stopped)
    monkeypatch.undo()
    assert checkpoint.read(stopped.folder / "last.safetensors").metadata["step"] == 3
    train(new_detector(), stopped, resume=True)
    whole, resumed = tensors(tmp_path / "whole"), tensors(tmp_path / "stopped")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_a_run_stopped_before_its_last_validation_is_judged_on_resume(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path, scenes, replace(TINY, validate_every=100))
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(Trainer, "evaluate", lambda self: (_ for _ in ()).throw(RuntimeError("power cut")))
        train(new_detector(), run)
    assert not (tmp_path / "best.safetensors").exists()
    assert train(new_detector(), run, resume=True).exists()


def test_a_gradient_that_is_no_number_leaves_the_checkpoint_alone(tmp_path: Path, scenes: Path) -> None:
    detector = new_detector()
    detector.convdet.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(DivergedError, match="'gradient' of the loss is nan"):
        train(detector, new_run(tmp_path, scenes, TINY))
    assert all(torch.isfinite(t).all() for t in tensors(tmp_path).values())


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path, scenes: Path) -> None:
    run = new_run(tmp_path, scenes, replace(TINY, steps=1))
    train(new_detector(), run)
    with pytest.raises(UsageError, match="`resume=True`"):
        train(new_detector(), run)
    with pytest.raises(UsageError, match="another batch"):
        train(new_detector(), new_run(tmp_path, scenes, replace(TINY, batch=3)), resume=True)
    with pytest.raises(UsageError, match="another config"):
        train(ConvDet(ConvDetConfig(size=(96, 96))), run, resume=True)
    with pytest.raises(UsageError, match="another data"):
        train(new_detector(), replace(run, train=run.train[1:]), resume=True)
    with pytest.raises(UsageError, match="holds no run"):
        train(new_detector(), new_run(tmp_path / "nothing", scenes, TINY), resume=True)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, scenes: Path) -> None:
    detector = new_detector()
    with torch.no_grad():
        detector.convdet.bias[36:] = float("nan")  # the deltas
    with pytest.raises(DivergedError, match=r"step 0: 'object' of the loss is nan .* on images"):
        train(detector, new_run(tmp_path, scenes, TINY))


def one_step(scenes: Path, tmp_path: Path, recipe: Recipe) -> tuple[Trainer, dict[str, torch.Tensor]]:
    run = new_run(tmp_path, scenes, recipe)
    detector = new_detector()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    trainer = Trainer(detector, run)
    trainer.learn(next(iter(batches(Examples(run.train, run.class_map), detector, recipe))))
    return trainer, before


def test_conv1_is_frozen_and_biases_do_not_decay(tmp_path: Path, scenes: Path) -> None:
    trainer, before = one_step(scenes, tmp_path, TINY)
    after = trainer.detector.state_dict()
    assert torch.equal(after["backbone.conv1.weight"], before["backbone.conv1.weight"])
    assert not torch.equal(after["backbone.fire2.squeeze1x1.weight"], before["backbone.fire2.squeeze1x1.weight"])
    decayed = {
        name
        for group in trainer.optimizer.param_groups
        if group["weight_decay"]
        for name, p in trainer.detector.named_parameters()
        if any(p is q for q in group["params"])
    }
    assert decayed == {n for n in before if n.endswith("weight") and not n.startswith("backbone.conv1.")}


def test_sgd_clips_each_tensor(tmp_path: Path, scenes: Path) -> None:
    recipe = replace(TINY, optimizer="sgd", clip="tensor", clip_norm=1e-4, weight_decay=0.0, learning_rate=1.0)
    trainer, before = one_step(scenes, tmp_path, recipe)
    after = trainer.detector.state_dict()
    moves = {k: float((after[k] - before[k]).norm()) for k in before}
    assert max(moves.values()) <= 1.01e-4
    assert sum(m > 0.99e-4 for m in moves.values()) >= 5  # a clip of all together moves none so far


def test_batches_do_not_depend_on_workers(scenes: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path, scenes, TINY)
    examples = Examples(run.train, run.class_map)
    a, b = (list(batches(examples, new_detector(), replace(TINY, workers=w))) for w in (0, 2))
    assert [x.ids for x in a] == [x.ids for x in b]
    assert all(torch.equal(x.images, y.images) for x, y in zip(a, b, strict=True))
    assert all(torch.equal(x.targets.boxes, y.targets.boxes) for x, y in zip(a, b, strict=True))


def test_epochs_draw_by_weight() -> None:
    weights = np.array([1.0, 1, 1, 1, 2, 2])
    drawn = np.concatenate([epoch_order(weights, 0, epoch) for epoch in range(400)])
    share = np.bincount(drawn, minlength=6) / len(drawn)
    assert np.abs(share - weights / weights.sum()).max() < 0.01
    even = epoch_order(np.ones(50), 0, 3)
    assert sorted(even) == list(range(50))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_bad_checkpoints(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.write(path, {"model.x": torch.zeros(3)}, {"step": 1})
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(1)}, path)
    else:
        path.write_bytes(b"" if damage == "empty" else content[:-4])
    with pytest.raises(ModelError, match=str(path)):
        checkpoint.read(path)


def test_means_of_steps_that_a_checkpoint_held() -> None:
    means = RunningMeans(batch=4)
    means.steps = [{"loss": 1.0}]
    means.add({"loss": 3.0})
    taken, _ = means.take()
    assert taken == {"loss": 2.0}
    assert means.steps == []


def test_plain_lines_when_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(100, 0) as progress:
        progress.step(50)
        progress.report(50, {"box": 0.5}, 12.0)
    line = capsys.readouterr().err
    assert line.startswith("step 50/100  box 0.500  12.0 img/s")
    assert line.endswith("min left\n")
