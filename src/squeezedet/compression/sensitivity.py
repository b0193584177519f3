"""How much each layer minds being pruned, and what density that leaves it under a budget.

Han, Pool, Tran, Dally, arXiv 1506.02626, section 5: each layer is pruned alone, all others
whole. That the damages of the layers add up is an approximation, and no retraining is in it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from squeezedet.compression.prune import kernels, mask_of, masked
from squeezedet.errors import UsageError
from squeezedet.models.network import DetectionNetwork
from squeezedet.training.batches import Examples, batches
from squeezedet.training.run_folder import Run

DENSITIES = (0.6, 0.4, 0.25, 0.15, 0.08)
SAMPLE_STEPS = 2


@dataclass(frozen=True, slots=True)
class Curve:
    """What pruning one layer costs.

    Attributes:
        name: of the layer.
        weights: numbers in its kernel.
        cost: at each density of the scan.
    """

    name: str
    weights: int
    cost: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """A scan.

    Attributes:
        base: the cost of the whole network; lower is better.
        densities: falling, below 1.
        curves: one for each layer.
    """

    base: float
    densities: tuple[float, ...]
    curves: tuple[Curve, ...]


def scan(network: nn.Module, cost: Callable[[], float], densities: Sequence[float] = DENSITIES) -> Sensitivity:
    """Prune each layer alone to each density, and see what that costs.

    Args:
        network: unchanged afterwards.
        cost: of the network as it is now; lower is better.
        densities: below 1, falling.
    """
    curves = []
    base = cost()
    for name, layer in kernels(network).items():
        found = []
        for density in densities:
            with _pruned(layer, density):
                found.append(cost())
        curves.append(Curve(name, layer.weight.numel(), tuple(found)))
    return Sensitivity(base, tuple(densities), tuple(curves))


@contextmanager
def _pruned(layer: nn.Conv2d | nn.Linear, density: float) -> Iterator[None]:
    whole = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.copy_(masked(whole, mask_of(whole, density)))
        yield
        layer.weight.copy_(whole)


def choose_densities(found: Sensitivity, total: float) -> dict[str, float]:
    """The densities of least cost under a budget, one of the scanned ones for each layer.

    Each layer takes the density where cost plus price times weights kept is least; the lowest
    price that meets the budget is found by bisection. All layers then trade at the same price.

    Args:
        found: the scan.
        total: share of all weights that may stay.

    Returns:
        Layer name -> density; layers that stay whole are left out.

    Raises:
        UsageError: even the smallest densities keep more.
    """
    options = np.array([1.0, *found.densities])
    weights = np.array([curve.weights for curve in found.curves], np.float64)
    costs = np.array([[found.base, *curve.cost] for curve in found.curves])
    costs = np.maximum.accumulate(costs, axis=1)  # that pruning more helps is chance
    kept = weights[:, None] * options
    budget = total * weights.sum()
    if kept[:, -1].sum() > budget:
        raise UsageError(
            f"a density of {total:g} in all cannot be reached: the smallest that is tried in a "
            f"layer is {found.densities[-1]:g}"
        )

    def best(price: float) -> NDArray[np.intp]:
        picked: NDArray[np.intp] = np.argmin(costs + price * kept, axis=1)
        return picked

    low, high = 0.0, 1.0
    rows = np.arange(len(weights))
    while kept[rows, best(high)].sum() > budget:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if kept[rows, best(middle)].sum() > budget else (low, middle)
    chosen = options[best(high)]
    return {curve.name: float(density) for curve, density in zip(found.curves, chosen, strict=True) if density < 1}


def sensitivity_of(detector: DetectionNetwork, run: Run) -> Sensitivity:
    """A scan by the mean loss, without dropout, on the first batches of a run: quick, and smoother than an AP.

    Raises:
        DataError: an image cannot be decoded.
    """
    detector = copy.deepcopy(detector).eval()
    short = replace(run.recipe, steps=SAMPLE_STEPS, workers=0, paste=0.0)
    sample = list(batches(Examples(run.train, run.class_map), detector, short))

    def cost() -> float:
        with torch.inference_mode():
            losses = [float(sum(detector.loss(detector(b.images), b.targets).values())) for b in sample]
        return float(np.mean(losses))

    return scan(detector, cost)
