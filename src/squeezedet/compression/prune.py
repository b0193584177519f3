"""Pruning: the smallest weights of each kernel become zero, and stay zero while the rest learns.

Han, Pool, Tran, Dally: "Learning both Weights and Connections", arXiv 1506.02626; the gradual
schedule is that of Zhu and Gupta: "To prune, or not to prune", arXiv 1710.01878, equation 1.

A mask is a bool tensor in the shape of its kernel. While a network is trained, each kernel is
its weights where the mask is set and zero elsewhere (a parametrization of torch), so that neither
the gradient, nor the optimizer's momentum, nor a moving average brings a pruned weight back.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from squeezedet.errors import UsageError
from squeezedet.models.network import DetectionNetwork
from squeezedet.toml import read_toml
from squeezedet.training.batches import Examples, batches
from squeezedet.training.run_folder import Run

GAP_LIMIT, GAP_BITS = 16, 4
"""A gap of four bits passes over at most 15 zeros and stands for one value."""
FLOAT_BITS = 32

Values = Mapping[str, NDArray[np.float32]]
"""Layer name -> its kernel."""


def kernels(network: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The layers whose ``weight`` is compressed, by name, in the order of the network."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


def kernel_values(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """A copy of the weights of each kernel, float32 in the kernel's own shape."""
    return {
        name: np.array(layer.weight.detach().cpu().float().numpy(), order="C")
        for name, layer in kernels(network).items()
    }


def put(network: nn.Module, values: Values) -> None:
    """Put weights into the kernels of a network without parametrizations, in place."""
    layers = kernels(network)
    with torch.no_grad():
        for name, value in values.items():
            layers[name].weight.copy_(torch.from_numpy(value))


def round_to_half(network: nn.Module) -> None:
    """Round all learned numbers to numbers that float16 can hold, in place.

    So the graph, which stores kernels as float16, holds exactly the shared values; and a bias
    takes two bytes of the file. There is no negative zero: a coder would count it as a value.
    """
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half().float() + 0.0)


@dataclass(frozen=True, slots=True)
class LayerSize:
    """How much one kernel holds.

    Attributes:
        name: of the layer.
        weights: numbers in the kernel.
        kept: of them, those that are not zero.
        fillers: entries that bridge runs of more than 15 zeros when gaps have four bits.
        values: different values that are not zero.
        entropy_bits: bits a weight, zeros included, of the values as float16: Shannon's
            bound for a coder that takes each weight on its own.
    """

    name: str
    weights: int
    kept: int
    fillers: int
    values: int
    entropy_bits: float

    @property
    def density(self) -> float:
        """Share of the weights that are not zero."""
        return self.kept / self.weights

    def stored_bytes(self, *, shared: bool) -> int:
        """Bytes before any entropy coding: dense, or entries with gaps of four bits.

        Args:
            shared: an entry is a code, and a codebook of float32 is stored; otherwise it is a float32.
        """
        symbols = self.values + (self.kept < self.weights)
        bits = math.ceil(math.log2(max(symbols, 2))) if shared else FLOAT_BITS
        entries = min(self.weights * bits, (self.kept + self.fillers) * (bits + GAP_BITS))
        return math.ceil(entries / 8) + (4 * self.values if shared else 0)


def measure(name: str, kernel: NDArray[np.float32]) -> LayerSize:
    """Count what a kernel holds; it has one number at least."""
    flat = kernel.reshape(-1)
    places = np.flatnonzero(flat)
    gaps = np.diff(places, prepend=-1) - 1
    counts = np.unique(flat.astype(np.float16), return_counts=True)[1]
    share = counts / flat.size
    return LayerSize(
        name=name,
        weights=flat.size,
        kept=len(places),
        fillers=int((gaps // GAP_LIMIT).sum()),
        values=len(np.unique(flat[places])),
        entropy_bits=float(-(share * np.log2(share)).sum()),
    )


UPDATES = 40
"""How often the masks of a gradual pruning change."""

Density = Mapping[str, float]
"""Layer name -> share of its weights that stays, above 0 to 1; others stay whole."""


def mask_of(weight: Tensor, density: float) -> Tensor:
    """Which weights stay: the largest by magnitude, exactly ``round(density * n)`` of n.

    Of equal magnitudes the first stay, so that the number is always exact.

    Args:
        weight: any shape.
        density: share that stays, above 0 to 1; one weight stays at least.

    Returns:
        bool, in the shape of ``weight``.
    """
    keep = max(1, round(density * weight.numel()))
    order = torch.sort(weight.detach().abs().flatten(), descending=True, stable=True).indices
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[order[:keep]] = True
    return mask.reshape(weight.shape)


def masked(weight: Tensor, mask: Tensor) -> Tensor:
    """The weights of a mask, and zero elsewhere; a product would make negative zeros."""
    return weight.masked_fill(~mask, 0.0)


def prune(network: nn.Module, density: Density) -> None:
    """Prune a network at once, in place, without retraining."""
    layers = kernels(network)
    with torch.no_grad():
        for name, share in density.items():
            weight = layers[name].weight
            weight.copy_(masked(weight, mask_of(weight, share)))


class Masked(nn.Module):
    """A kernel as its weights under a mask: bool, in the shape of the kernel."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return masked(weight, self.mask)


def parametrize_masks(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Put masks on kernels, in place, until ``remove`` (torch's parametrizations)."""
    layers = kernels(network)
    for name, mask in masks.items():
        parametrize.register_parametrization(layers[name], "weight", Masked(mask))


def parametrization_of(layer: nn.Module) -> Any:
    """The parametrization of a layer's kernel: a ``Masked`` or a ``share.Shared``."""
    parametrizations: Any = layer.parametrizations
    return parametrizations["weight"][0]


def remove(network: nn.Module) -> None:
    """Make plain weights of all parametrized kernels; zeros stay zeros."""
    for layer in kernels(network).values():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")


def gradual(final: float, done: float) -> float:
    """The density on the way from 1 to ``final``, of which a part is done: falls fast at first."""
    left = 1 - min(max(done, 0.0), 1.0)
    return final + (1 - final) * left**3


@dataclass(frozen=True, slots=True)
class Schedule:
    """A gradual pruning over the steps of a training.

    Attributes:
        density: where it ends.
        ramp: the step from which on it is reached; the rest of the training recovers under
            fixed masks. 0 prunes at once.
    """

    density: Density
    ramp: int

    def begin(self, network: nn.Module) -> None:
        """Put the first masks on: whole ones, unless all is pruned at once."""
        layers = kernels(network)
        parametrize_masks(network, {name: mask_of(layers[name].weight, self._at(0, name)) for name in self.density})

    def update(self, network: nn.Module, step: int) -> None:
        """Prune further if it is time; to be called before each step, from 0 on.

        What is pruned stays so: a weight that is zero has the smallest magnitude.
        """
        period = max(1, self.ramp // UPDATES)
        if step > self.ramp or (step % period and step != self.ramp):
            return
        layers = kernels(network)
        for name in self.density:
            parametrization_of(layers[name]).mask.copy_(mask_of(layers[name].weight, self._at(step, name)))

    def _at(self, step: int, name: str) -> float:
        return gradual(self.density[name], step / self.ramp if self.ramp else 1.0)


def uniform(network: nn.Module, density: float) -> dict[str, float]:
    """The same density in all layers but the one that sees the pixels, whole as in the paper.

    That kernel is small, and everything goes through it.
    """
    inner = [name for name, layer in kernels(network).items() if layer.weight.shape[1] != 3]  # numbers in a pixel
    return dict.fromkeys(inner, density) if density < 1 else {}


def read_numbers(path: Path, layers: Sequence[str], low: float, high: float) -> dict[str, float]:
    """A number for each layer that a TOML file names: above ``low``, and at most ``high``.

    Keys are names of layers, with the wildcards of a shell; of several that fit a layer the last
    counts. Tables are the parts of a name: ``[backbone.fire2]``.

    Raises:
        UsageError: it cannot be read, a key fits no layer, or a number is out of range.
    """
    found: dict[str, float] = {}
    for pattern, value in _flat(read_toml(path, "list of layers")):
        fitting = [name for name in layers if fnmatchcase(name, pattern)]
        if not fitting:
            raise UsageError(f"{path}: no layer {pattern!r}; there are {', '.join(layers)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
            raise UsageError(f"{path}: {pattern} must be above {low:g} to {high:g}, not {value!r}")
        found |= dict.fromkeys(fitting, value)
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# ------------------------------------------------------------ how much each layer minds being pruned
# Han, Pool, Tran, Dally, section 5: each layer is pruned alone, all others whole. That the damages of the layers add up
# is an approximation, and no retraining is in it.

DENSITIES = (0.6, 0.4, 0.25, 0.15, 0.08)
SAMPLE_STEPS = 2


@dataclass(frozen=True, slots=True)
class Curve:
    """What pruning one layer, of so many weights, costs at each density of the scan."""

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
    """Prune each layer alone to each density, and see what that costs: ``cost`` is of the network as it is then."""
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
