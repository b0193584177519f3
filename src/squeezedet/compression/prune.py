"""Pruning: the smallest weights of each kernel become zero, and stay zero while the rest learns.

Han, Pool, Tran, Dally: "Learning both Weights and Connections", arXiv 1506.02626; the gradual
schedule is that of Zhu and Gupta: "To prune, or not to prune", arXiv 1710.01878, equation 1.

A mask is a bool tensor in the shape of its kernel. While a network is trained, each kernel is
its weights where the mask is set and zero elsewhere (a parametrization of torch), so that neither
the gradient, nor the optimiser's momentum, nor a moving average brings a pruned weight back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from squeezedet.compression.layers import kernels

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
    """A kernel as its weights under a mask.

    Attributes:
        mask: bool, in the shape of the kernel.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return masked(weight, self.mask)


def hold(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Put masks on kernels, in place, until ``release``."""
    layers = kernels(network)
    for name, mask in masks.items():
        parametrize.register_parametrization(layers[name], "weight", Masked(mask))


def held(layer: nn.Module) -> Any:
    """What is held on the kernel of a layer: a ``Masked`` or a ``share.Shared``."""
    parametrizations: Any = layer.parametrizations
    return parametrizations["weight"][0]


def release(network: nn.Module) -> None:
    """Make plain weights of all kernels that something is held on; zeros stay as zeros."""
    for layer in kernels(network).values():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")


def gradual(final: float, done: float) -> float:
    """The density on the way from 1 to ``final``: falls fast at first, when much is superfluous.

    Args:
        final: where it ends.
        done: part of the way, 0 to 1; beyond that it stays.
    """
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
        hold(
            network,
            {name: mask_of(layers[name].weight, self._at(0, name)) for name in self.density},
        )

    def update(self, network: nn.Module, step: int) -> None:
        """Prune further if it is time; to be called before each step, from 0 on.

        What is pruned stays so: a weight that is zero has the smallest magnitude.
        """
        period = max(1, self.ramp // UPDATES)
        if step > self.ramp or (step % period and step != self.ramp):
            return
        layers = kernels(network)
        for name in self.density:
            held(layers[name]).mask.copy_(mask_of(layers[name].weight, self._at(step, name)))

    def _at(self, step: int, name: str) -> float:
        return gradual(self.density[name], step / self.ramp if self.ramp else 1.0)
