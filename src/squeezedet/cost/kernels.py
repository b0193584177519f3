"""From the steps of a graph to what an inference engine runs, with the buffers it needs.

What an engine does not compute on its own is fused, as engines do:

* ReLU, batch norm and other functions of one number that follow a convolution (or anything)
  that nobody else reads are part of it;
* a sum, or a function of one number that cannot be fused, overwrites an input that nobody
  else reads; the input of the network is never overwritten;
* a concatenation is no work: its parts are written where they belong. A part that is an input
  of the network, or already belongs to another concatenation, is copied.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from squeezedet.cost.graph import Graph, Step

ELEMENTWISE = ("relu", "norm", "pointwise")


@dataclass(slots=True)
class Kernel:
    """Steps that run as one: the first is the work, the others are fused behind it.

    Attributes:
        steps: at least one.
        reads: buffers that it needs; ``writes``: buffers that come to be.
        after: kernels that must have run, as indices.
        output: index of the value that it computes, after all that is fused.
    """

    steps: list[Step]
    reads: frozenset[int]
    writes: tuple[int, ...]
    after: frozenset[int]
    output: int

    @property
    def name(self) -> str:
        """Of the layer."""
        return self.steps[0].name


@dataclass(frozen=True, slots=True)
class Program:
    """Kernels in the order of the graph, and buffers with their bytes.

    Attributes:
        inputs, outputs: buffers that exist before the first and after the last kernel.
    """

    kernels: tuple[Kernel, ...]
    buffers: tuple[int, ...]
    inputs: frozenset[int]
    outputs: frozenset[int]


@dataclass(slots=True)
class _Held:
    """Where a value lies: its buffers, who makes them, and whether it alone uses them."""

    buffers: tuple[int, ...]
    makers: tuple[int, ...]
    owned: bool


@dataclass(slots=True)
class _Fuser:
    graph: Graph
    kernels: list[Kernel] = field(default_factory=list)
    buffers: list[int] = field(default_factory=list)
    held: dict[int, _Held] = field(default_factory=dict)
    placed: set[int] = field(default_factory=set)  # values inside a concatenation
    uses: Counter[int] = field(default_factory=Counter)

    def run(self) -> Program:
        self.uses = self.graph.use_counts()
        for value in self.graph.inputs:
            self.held[value] = _Held((self.buffer(value),), (), owned=False)
        for step in self.graph.steps:
            if step.kind == "concat":
                self.concat(step)
            elif not (self.fused(step) or self.in_place(step)):
                self.compute(step)
        return Program(
            tuple(self.kernels),
            tuple(self.buffers),
            frozenset(b for value in self.graph.inputs for b in self.held[value].buffers),
            frozenset(b for value in self.graph.outputs for b in self.held[value].buffers),
        )

    def buffer(self, value: int) -> int:
        self.buffers.append(self.graph.values[value].size_bytes)
        return len(self.buffers) - 1

    def free_to_change(self, value: int) -> bool:
        """Whether nobody else reads the value, or anything else in its buffers."""
        return self.held[value].owned and self.uses[value] == 1

    def same_size(self, step: Step, value: int) -> bool:
        values = self.graph.values
        return len(step.writes) == 1 and (
            values[value].size_bytes == values[step.writes[0]].size_bytes
        )

    def fused(self, step: Step) -> bool:
        """Append the step to the kernels that make its only input, if that is possible."""
        if step.kind not in ELEMENTWISE or len(step.reads) != 1:
            return False
        (value,) = step.reads
        makers = self.held[value].makers
        split = len(makers) > 1 and step.parameters  # parameters belong to one kernel
        if not (makers and self.free_to_change(value) and self.same_size(step, value)) or split:
            return False
        for index in makers:
            self.kernels[index].steps.append(step)
        if len(makers) == 1:
            self.kernels[makers[0]].output = step.writes[0]
        self.held[step.writes[0]] = self.held[value]
        return True

    def in_place(self, step: Step) -> bool:
        """Let the step overwrite one of its inputs, if that is possible."""
        if step.kind not in ELEMENTWISE:
            return False
        for value in step.reads:
            if self.free_to_change(value) and self.same_size(step, value):
                held = self.held[value]
                index = self.add(step, step.reads, writes=())
                self.held[step.writes[0]] = _Held(held.buffers, (index,), owned=True)
                return True
        return False

    def compute(self, step: Step) -> None:
        writes = tuple(self.buffer(value) for value in step.writes)
        index = self.add(step, step.reads, writes)
        for value, buffer in zip(step.writes, writes, strict=True):
            self.held[value] = _Held((buffer,), (index,), owned=True)

    def add(self, step: Step, values: tuple[int, ...], writes: tuple[int, ...]) -> int:
        held = [self.held[value] for value in values]
        reads = frozenset(b for h in held for b in h.buffers)
        after = frozenset(maker for h in held for maker in h.makers)
        self.kernels.append(Kernel([step], reads, writes, after, step.writes[0]))
        return len(self.kernels) - 1

    def concat(self, step: Step) -> None:
        there = [v for v in step.reads if self.held[v].makers and v not in self.placed]
        size = sum(self.graph.values[v].size_bytes for v in step.reads)
        if size != self.graph.values[step.writes[0]].size_bytes:
            there = []  # a value that stands in it twice
        copied = tuple(v for v in step.reads if v not in there)
        owned = all(self.free_to_change(v) for v in there)
        self.placed.update(there)
        buffers = [b for v in there for b in self.held[v].buffers]
        makers = [maker for v in there for maker in self.held[v].makers]
        if copied:
            if there:
                writes = tuple(self.buffer(v) for v in copied)
            else:
                writes = (self.buffer(step.writes[0]),)
            makers.append(self.add(step, copied, writes))
            buffers += writes
        self.held[step.writes[0]] = _Held(tuple(buffers), tuple(dict.fromkeys(makers)), owned)


def program(graph: Graph) -> Program:
    """What an engine runs of a graph."""
    return _Fuser(graph).run()
