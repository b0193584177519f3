"""What is compressed: the kernels of convolutions and linear layers, and how large they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

GAP_LIMIT, GAP_BITS = 16, 4
"""A gap of four bits passes over at most 15 zeros and stands for one value."""
FLOAT_BITS = 32

Values = Mapping[str, NDArray[np.float32]]
"""Layer name -> its kernel."""


def kernels(network: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The layers whose ``weight`` is compressed, by name, in the order of the network."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def kernel_values(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """A copy of the weights of each kernel, float32 in the kernel's own shape."""
    return {
        name: np.array(layer.weight.detach().cpu().float().numpy(), order="C")
        for name, layer in kernels(network).items()
    }


def put(network: nn.Module, values: Values) -> None:
    """Put weights into the kernels of a network that nothing is held on, in place."""
    layers = kernels(network)
    with torch.no_grad():
        for name, value in values.items():
            layers[name].weight.copy_(torch.from_numpy(value))


def round_to_half(network: nn.Module) -> None:
    """Round all that was learnt to numbers that float16 can hold, in place.

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
            shared: an entry is a code, and a codebook of float32 is stored; otherwise it is a
                float32.
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


def measure_all(values: Values) -> tuple[LayerSize, ...]:
    """Count what each kernel holds."""
    return tuple(measure(name, kernel) for name, kernel in values.items())


def density_of(sizes: Iterable[LayerSize]) -> float:
    """Share of all weights that are not zero."""
    sizes = tuple(sizes)
    return sum(s.kept for s in sizes) / sum(s.weights for s in sizes)


def entropy_of(sizes: Iterable[LayerSize]) -> float:
    """Bits a weight, over all kernels; each has its own code."""
    sizes = tuple(sizes)
    return sum(s.entropy_bits * s.weights for s in sizes) / sum(s.weights for s in sizes)
