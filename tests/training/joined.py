"""What each process of test_distributed.py runs: ``python joined.py WHAT DATA OUT``."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from squeezedet.data.dataset import read_split
from squeezedet.data.sample import KITTI_DEFAULT
from squeezedet.errors import SqueezeDetError
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training.batches import Examples, batches
from squeezedet.training.distributed import SINGLE_PROCESS, Processes, join
from squeezedet.training.loop import run_training as train
from squeezedet.training.recipe import Recipe
from squeezedet.training.run_folder import Run
from squeezedet.training.trainer import Trainer
from squeezedet.training.validate import detect_all

RECIPE = Recipe(
    steps=20, batch=2, shapes=((96, 64), (64, 96)), warmup=0, clip_norm=1.0, balance=0.0, workers=0, amp=False
)
SHORT = replace(RECIPE, steps=6, validate_every=3, checkpoint_every_s=1e9)


def new_detector() -> ConvDet:
    torch.manual_seed(1)
    return ConvDet(ConvDetConfig(size=(192, 96), dropout=0.0))


def new_run(data: Path, out: Path, recipe: Recipe) -> Run:
    train, val = (read_split(data, split) for split in ("train", "val"))
    return Run(folder=out, train=train, val=val, class_map=KITTI_DEFAULT, recipe=recipe, quiet=True)


def learn(data: Path, out: Path, recipe: Recipe, processes: Processes = SINGLE_PROCESS) -> Trainer:
    """All steps of a recipe, without a loop around them."""
    run = new_run(data, out, recipe)
    trainer = Trainer(new_detector(), run, processes)
    examples = Examples(run.train, run.class_map)
    for batch in batches(examples, trainer.detector, recipe, 0, processes):
        trainer.learn(batch)
    return trainer


def losses(trainer: Trainer) -> list[float]:
    """The sum of the terms of each step."""
    return [sum(v for k, v in s.items() if k != "grad_norm") for s in trainer.means.steps]


def compare(data: Path, out: Path, processes: Processes) -> None:
    """Twenty steps, and detections in an odd number of images."""
    trainer = learn(data, out, RECIPE, processes)
    assert all(torch.equal(trainer.ema[k], v) for k, v in processes.gather(trainer.ema)[0].items())
    samples = trainer.run.train[:3]
    found = detect_all(trainer.detector, samples, processes)
    if processes.first:
        (out / "losses.json").write_text(json.dumps(losses(trainer)))
        alone = detect_all(trainer.detector, samples)
        same = [bool((a.xyxy == b.xyxy).all()) for a, b in zip(found, alone, strict=True)]
        (out / "found.json").write_text(json.dumps(same))


def run(data: Path, out: Path, processes: Processes, what: str) -> None:
    """A whole run; in process 1 something happens in step 2."""
    do = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *more: object) -> object:
        answer = do(self, *more)
        if processes.rank == 1 and max(int(v["step"]) for v in self.state.values()) == 2:
            if what == "stop":
                os.kill(os.getpid(), signal.SIGTERM)
            elif what == "die":
                os._exit(9)
        return answer

    torch.optim.AdamW.step = step  # type: ignore[method-assign]
    recipe = replace(SHORT, seed=processes.rank) if what == "differ" else SHORT
    detector = new_detector()
    try:
        train(detector, new_run(data, out, recipe), what == "resume", processes)
    except KeyboardInterrupt:
        sys.exit(130)


def main() -> None:
    what, data, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    try:
        with join(timeout_s=30) as processes:
            if what == "compare":
                compare(data, out, processes)
            else:
                run(data, out, processes, what)
    except SqueezeDetError as error:
        print(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
