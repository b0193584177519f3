"""The graph of one run of a network: what is computed from what, with sizes.

It comes from a torch module (``trace``) or from an ONNX file (``onnx``); counting and
memory know nothing else of either. Views, constants and what is computed from constants
alone are no part of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["conv", "linear", "matmul", "pool", "norm", "relu", "pointwise", "concat", "other"]
WEIGHTED = ("conv", "linear")
"""The kinds that have weights of their own; the papers' counters know nothing else."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that is computed: its shape, batch first, and the bytes that it needs."""

    shape: tuple[int, ...]
    size_bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation.

    Attributes:
        name: of the layer, as the network names it; unique.
        kind: ``conv`` (of any number of dimensions, transposed too), ``linear`` (a product with
            weights: fully connected, locally connected), ``matmul`` (a product of two
            activations), ``pool``, ``norm``, ``relu`` (leaky and capped ones too), ``pointwise``
            (one number from one number of each input), ``concat``, ``other``.
        operation: what the framework calls it.
        reads, writes: indices into ``Graph.values``.
        parameters: names of the parameters that it uses.
        macs: multiply-accumulates of a convolution or a product; 0 for all else.
        weight: how many weights it has.
        units: how many outputs have a bias, if they have one: channels of a convolution.
        window: kernel height and width, of a convolution or a pool.
        stride: rows and columns, of a convolution or a pool.
    """

    name: str
    kind: Kind
    operation: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    parameters: tuple[str, ...] = ()
    macs: int = 0
    weight: int = 0
    units: int = 0
    window: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that a network keeps: how many numbers, and whether they are learned."""

    elements: int
    learned: bool = True


@dataclass(frozen=True, slots=True)
class Graph:
    """One run of a network.

    Attributes:
        values: every activation.
        steps: in the order in which they were run.
        inputs, outputs: indices into ``values``.
        stored: parameters and persistent float buffers by name, also those that no step reads.
        unsized: what depends on the data in size; it counts as nothing.
    """

    values: tuple[Value, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    stored: Mapping[str, Stored]
    unsized: tuple[str, ...] = ()

    def readers(self) -> dict[int, list[Step]]:
        """Value -> the steps that read it."""
        found: dict[int, list[Step]] = {value: [] for value in range(len(self.values))}
        for step in self.steps:
            for value in set(step.reads):
                found[value].append(step)
        return found

    def use_counts(self) -> Counter[int]:
        """Value -> how many steps read it; the caller, who wants the outputs, counts as one."""
        counts: Counter[int] = Counter(self.outputs)
        for step in self.steps:
            counts.update(set(step.reads))
        return counts


class UniqueNames:
    """Layer names of which no two are the same: ``pool``, ``pool_2``, ``pool_3``."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._given: set[str] = set()

    def __call__(self, name: str) -> str:
        """``name``, with a number if it has been given before."""
        given = name
        while given in self._given:
            self._seen[name] += 1
            given = f"{name}_{1 + self._seen[name]}"
        self._given.add(given)
        return given
