"""The graph of one run of a network: what is computed from what, with sizes.

It comes from a torch module (``models.profile``) or an ONNX file (``onnx``); counting knows nothing else of either.
Views, constants and what is computed from constants alone are no part of it.
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


# ------------------------------------------------------------ what an engine runs

ELEMENTWISE = ("relu", "norm", "pointwise")


@dataclass(frozen=True, slots=True)
class Kernel:
    """Steps that run as one: the first is the work, the others are fused behind it.

    Attributes:
        steps: at least one.
        reads: buffers that it needs; ``writes``: buffers that come to be, none in place.
    """

    steps: list[Step]
    reads: frozenset[int]
    writes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """Kernels in the order of the graph, the bytes of each buffer, and those that exist before and after the run."""

    kernels: tuple[Kernel, ...]
    buffers: tuple[int, ...]
    inputs: frozenset[int]
    outputs: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Held:
    """Where a value lies: its buffers, the kernels that make them, and whether it alone uses them."""

    buffers: tuple[int, ...]
    makers: tuple[int, ...]
    owned: bool


def fuse(graph: Graph) -> Program:
    """What an engine runs of a graph.

    Functions of one number are part of the layer before them, a sum is written over one of its inputs, and a
    concatenation is no work where its parts can be written to their places.
    """
    return _Fuser(graph).program()


class _Fuser:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.kernels: list[Kernel] = []
        self.buffers: list[int] = []
        self.held: dict[int, _Held] = {}
        self.placed: set[int] = set()  # values inside a concatenation
        self.uses = Counter(graph.outputs)  # the caller, who wants the outputs, counts as one reader
        for step in graph.steps:
            self.uses.update(set(step.reads))

    def program(self) -> Program:
        for value in self.graph.inputs:
            self.held[value] = _Held((self.buffer(value),), (), owned=False)
        for step in self.graph.steps:
            if step.kind == "concat":
                self.concat(step)
            elif not (step.kind in ELEMENTWISE and (self.fused(step) or self.in_place(step))):
                writes = tuple(self.buffer(value) for value in step.writes)
                index = self.add(step, step.reads, writes)
                for value, buffer in zip(step.writes, writes, strict=True):
                    self.held[value] = _Held((buffer,), (index,), owned=True)
        inputs, outputs = (
            frozenset(b for value in values for b in self.held[value].buffers)
            for values in (self.graph.inputs, self.graph.outputs)
        )
        return Program(tuple(self.kernels), tuple(self.buffers), inputs, outputs)

    def buffer(self, value: int) -> int:
        self.buffers.append(self.graph.values[value].size_bytes)
        return len(self.buffers) - 1

    def add(self, step: Step, values: tuple[int, ...], writes: tuple[int, ...]) -> int:
        reads = frozenset(b for value in values for b in self.held[value].buffers)
        self.kernels.append(Kernel([step], reads, writes))
        return len(self.kernels) - 1

    def alone(self, value: int) -> bool:
        """Whether nobody else reads the value, or anything else in its buffers."""
        return self.held[value].owned and self.uses[value] == 1

    def fits(self, step: Step, value: int) -> bool:
        """Whether the step's one output may lie where the value lies."""
        sizes = [self.graph.values[v].size_bytes for v in (value, *step.writes)]
        return self.alone(value) and len(sizes) == 2 and sizes[0] == sizes[1]

    def fused(self, step: Step) -> bool:
        """Append the step to the kernels that make its only input, if that is possible."""
        makers = self.held[step.reads[0]].makers
        split = len(makers) > 1 and step.parameters  # parameters belong to one kernel
        if len(step.reads) != 1 or not makers or split or not self.fits(step, step.reads[0]):
            return False
        for index in makers:
            self.kernels[index].steps.append(step)
        self.held[step.writes[0]] = self.held[step.reads[0]]
        return True

    def in_place(self, step: Step) -> bool:
        """Let the step overwrite one of its inputs, if that is possible."""
        for value in step.reads:
            if self.fits(step, value):
                index = self.add(step, step.reads, writes=())
                self.held[step.writes[0]] = _Held(self.held[value].buffers, (index,), owned=True)
                return True
        return False

    def concat(self, step: Step) -> None:
        """Values that are written into the concatenation lie there already; all others are copied."""
        there = [v for v in step.reads if self.held[v].makers and v not in self.placed]
        size = sum(self.graph.values[v].size_bytes for v in step.reads)
        if size != self.graph.values[step.writes[0]].size_bytes:
            there = []  # a value that stands in it twice
        copied = tuple(v for v in step.reads if v not in there)
        owned = all(self.alone(v) for v in there)
        self.placed.update(there)
        buffers = [b for v in there for b in self.held[v].buffers]
        makers = [maker for v in there for maker in self.held[v].makers]
        if copied:
            writes = tuple(self.buffer(v) for v in copied) if there else (self.buffer(step.writes[0]),)
            makers.append(self.add(step, copied, writes))
            buffers += writes
        self.held[step.writes[0]] = _Held(tuple(buffers), tuple(dict.fromkeys(makers)), owned)
