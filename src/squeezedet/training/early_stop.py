"""When to stop early: the mean AP on training images has converged, as in the SqueezeDet paper.

The paper trains "until the mAP on the training set converges" (section 4.1). Here: the mean AP
on a fixed sample of the training images is measured at every validation; when it has not risen
by more than ``early_rise`` above its last rise in ``early_stop`` validations, the run ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from squeezedet.data.sample import Sample
from squeezedet.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Convergence:
    """How the mean AP on the training images goes.

    Attributes:
        best: mean AP, 0 to 1, at its last rise; -1 before the first validation.
        waited: validations since then.
    """

    best: float = -1.0
    waited: int = 0

    def after(self, mean_ap: float, recipe: Recipe) -> Convergence:
        """The state after one more validation."""
        if mean_ap > self.best + recipe.early_rise:
            return Convergence(mean_ap, 0)
        return Convergence(self.best, self.waited + 1)

    def reached(self, recipe: Recipe) -> bool:
        """Whether the run shall end."""
        return 0 < recipe.early_stop <= self.waited


def even_sample(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most so many samples, evenly spaced, always the same."""
    index = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[i] for i in index]
