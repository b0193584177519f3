"""Do the loaders keep up? Images per second of the whole loop against steps on one held batch.

    python benchmarks/training_loop.py --data roads

Both take the same number of steps with the same network on windows of the same shape, in several
rounds; medians are compared. The loop reads, augments and assigns in its worker
processes; the other side learns from a batch that is in memory.
Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from squeezedet.data.dataset import class_map_for, read_dataset
from squeezedet.training.batches import Examples, batches
from squeezedet.training.run_folder import Run
from squeezedet.training.train import Plan
from squeezedet.training.trainer import Trainer

WARM_UP = 3


def main() -> None:
    arguments = _arguments()
    dataset = read_dataset(arguments.data)
    samples = dataset.split(arguments.split)
    planned = Plan.create(arguments.network, class_map_for(dataset), samples)
    steps = WARM_UP + arguments.steps * arguments.rounds
    recipe = replace(planned.recipe, steps=steps, batch=arguments.batch, shapes=planned.recipe.shapes[:1])
    if arguments.workers is not None:
        recipe = replace(recipe, workers=arguments.workers)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder=Path(folder), train=samples, val=(), class_map=planned.class_map, recipe=recipe, quiet=True)
        answer = _measure(Trainer(planned.detector, run), run, arguments)
    print(json.dumps(answer, indent=2))


def _measure(trainer: Trainer, run: Run, arguments: argparse.Namespace) -> dict[str, object]:
    examples = Examples(run.train, run.class_map)
    examples.preload()
    loop, held = [], []
    with closing(batches(examples, trainer.detector, run.recipe)) as prepared:
        for _ in range(WARM_UP):
            batch = next(prepared)
            trainer.learn(batch)
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            for _ in range(arguments.steps):
                trainer.learn(next(prepared))
            loop.append(run.recipe.batch * arguments.steps / (time.perf_counter() - start))
        # The workers have nothing left to prepare now: nothing takes the processor from these.
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        for _ in range(arguments.steps):
            trainer.learn(batch)
        held.append(run.recipe.batch * arguments.steps / (time.perf_counter() - start))
    share = statistics.median(loop) / statistics.median(held)
    return {
        "loop_images_per_s": [round(v, 2) for v in loop],
        "held_images_per_s": [round(v, 2) for v in held],
        "share": round(share, 4),
        "batch": run.recipe.batch,
        "window": run.recipe.shapes[0],
        "workers": run.recipe.workers,
        "threads": torch.get_num_threads(),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--network", default="squeezedet")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--steps", type=int, default=20, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
