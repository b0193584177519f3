"""How long a run takes on this machine, and how many steps fit into the time there is."""

from __future__ import annotations

import copy
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from squeezedet.detectors.network import DetectionNetwork
from squeezedet.training.batches import batches
from squeezedet.training.distributed import ALONE, Processes
from squeezedet.training.early_stop import even_sample
from squeezedet.training.examples import Examples
from squeezedet.training.recipe import Recipe, shortened
from squeezedet.training.run import Run
from squeezedet.training.trainer import Trainer
from squeezedet.training.validate import detect_all

STEPS_TIMED = 3
IMAGES_TIMED = 4
BUNDLE_S = 20.0
"""Export takes about so long."""
MARGIN = 0.9
"""The share of the time that is planned for: steps are not all of one length."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one step, and of one validation."""

    step_s: float
    judge_s: float

    @property
    def end_s(self) -> float:
        """Seconds that the end of a run takes: validation, calibration of the scores, export."""
        return 2 * self.judge_s + BUNDLE_S


def measure(
    detector: DetectionNetwork, run: Run, examples: Examples, processes: Processes = ALONE
) -> Pace:
    """Time a few steps and detections with a copy of the network; nothing is changed.

    Of several processes the slowest counts.
    """
    scratch = Trainer(copy.deepcopy(detector), run, processes)
    taken = []
    with closing(batches(examples, scratch.detector, run.recipe, 0, processes)) as prepared:
        for batch in islice(prepared, STEPS_TIMED):
            start = time.monotonic()
            scratch.learn(batch)
            taken.append(time.monotonic() - start)
    judged = len(run.val) + (run.recipe.early_images if run.recipe.early_stop else 0)
    some = even_sample(run.val or run.train, IMAGES_TIMED)
    start = time.monotonic()
    detect_all(scratch.detector, some)
    judge_s = (time.monotonic() - start) / len(some) * judged / processes.count
    paces = processes.gather(Pace(min(taken), judge_s))
    return Pace(max(p.step_s for p in paces), max(p.judge_s for p in paces))


def in_time(recipe: Recipe, pace: Pace, seconds: float) -> Recipe:
    """The recipe with as many steps, at most its own, as fit into the seconds."""
    one = pace.step_s + pace.judge_s / recipe.validate_every
    steps = max(1, int(MARGIN * (seconds - pace.end_s) / one))
    return recipe if steps >= recipe.steps else shortened(recipe, steps)
