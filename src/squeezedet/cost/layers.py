"""Count a graph: parameters, MACs, FLOPs, activations and traffic, layer by layer; and memory at one time.

Conventions, by name:

``macs``          multiply-accumulates of convolutions and products; ``flops`` is twice that.
``flops_paper``   the counter of the SqueezeDet paper: (2 k^2 Cin + 1) Cout Ho Wo for each
                  convolution, plus 2 Cout Ho Wo when a ReLU follows; pooling, concatenation,
                  sums, normalisation and decoding are 0. The 1 is the bias, counted whether
                  there is one or not. What the paper does not have follows the same rule,
                  2 MACs + outputs (+ 2 outputs): a grouped convolution with its smaller MACs,
                  a fully or locally connected layer as a convolution over one place, leaky and
                  capped ReLU as ReLU. Products of two activations count 2 MACs.
``activations``   float32 bytes of the input and of every output of a convolution, product or
                  pool; the two expand layers of a fire module count apart, their concatenation
                  not again (supplement, section 2).
``intensity``     FLOPs per byte moved: inputs, weights and outputs of a layer, float32, each
                  moved once; fused functions and concatenation move nothing.

Parameters are counted in one of four ways, see ``COUNTINGS``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from squeezedet.cost.graph import WEIGHTED, Graph, Kernel, Program, Step, fuse
from squeezedet.errors import ModelError

Counting = Literal["module", "stored", "layers", "paper"]
COUNTINGS: dict[Counting, str] = {
    "module": "every learned number of the network",
    "stored": "every number that its file holds: learned ones and batch-norm statistics",
    "layers": "weights and biases of convolutions and products, no batch norm",
    "paper": "the paper's counter: weights, and a bias for each filter; no batch norm",
}
FLOAT_BYTES = 4
MIB = 2**20
ACTIVATIONS = (*WEIGHTED, "matmul", "pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer with what is fused behind it.

    Attributes:
        name: as the network names it.
        kind: for example ``conv+norm+relu``.
        output: (channels, height, width), or what the layer gives for one image.
        window, stride: of a convolution or pool, else empty.
        parameters: in the counting of the ``Cost``; a shared one counts where it comes first.
        macs: multiply-accumulates.
        flops_paper: by the paper's counter.
        activation_bytes: of its output, if the paper counts it.
        moved_bytes: input, weights and output.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    parameters: int
    macs: int
    flops_paper: int
    activation_bytes: int
    moved_bytes: int

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def intensity(self) -> float:
        return self.flops / self.moved_bytes if self.moved_bytes else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run of a network costs.

    Attributes:
        input: shape of one input, without the batch.
        counting: how parameters are counted.
        layers: in the order in which they run.
        parameters: all of the network's, also those that no layer uses.
        by_counting: the same in every counting.
        input_bytes: of the input as float32; part of the activations.
        norm_elements: outputs of batch norm; some count them as one MAC each.
    """

    input: tuple[int, ...]
    counting: Counting
    layers: tuple[Layer, ...]
    parameters: int
    by_counting: dict[Counting, int]
    input_bytes: int
    norm_elements: int

    @property
    def size_bytes(self) -> int:
        return FLOAT_BYTES * self.parameters

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def flops_paper(self) -> int:
        return sum(layer.flops_paper for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Input, and outputs of convolutions, products and pools."""
        return self.input_bytes + sum(layer.activation_bytes for layer in self.layers)

    @property
    def intensity(self) -> float:
        moved = sum(layer.moved_bytes for layer in self.layers)
        return self.flops / moved if moved else 0.0


def count(graph: Graph, counting: Counting = "module") -> Cost:
    """Count what a graph costs."""
    engine = fuse(graph)
    followed = _followed_by_relu(graph)
    by_counting = {name: _parameters(graph, name) for name in COUNTINGS}
    seen: set[str] = set()
    layers = tuple(_layer(graph, engine, kernel, counting, followed, seen) for kernel in engine.kernels)
    return Cost(
        input=graph.values[graph.inputs[0]].shape[1:],
        counting=counting,
        layers=layers,
        parameters=by_counting[counting],
        by_counting=by_counting,
        input_bytes=FLOAT_BYTES * sum(graph.values[v].elements for v in graph.inputs),
        norm_elements=sum(graph.values[step.writes[0]].elements for step in graph.steps if step.kind == "norm"),
    )


def _layer(
    graph: Graph, engine: Program, kernel: Kernel, counting: Counting, followed: set[str], seen: set[str]
) -> Layer:
    step = kernel.steps[0]
    outputs = graph.values[step.writes[0]].elements
    weights = _parameters_of(graph, kernel.steps, "module", set()) + (0 if step.parameters else step.weight)
    touched = sum(engine.buffers[b] for b in (*kernel.reads, *kernel.writes))
    flops_paper = 2 * step.macs
    if step.kind in WEIGHTED:  # the bias, and the ReLU's two
        flops_paper += outputs * (3 if step.name in followed else 1)
    if not kernel.writes:  # in place: one input is written again
        touched += graph.values[step.writes[0]].size_bytes
    return Layer(
        name=step.name,
        kind="+".join(dict.fromkeys(s.kind for s in kernel.steps)),
        output=graph.values[step.writes[0]].shape[1:],
        window=step.window,
        stride=step.stride,
        parameters=_parameters_of(graph, kernel.steps, counting, seen),
        macs=step.macs,
        flops_paper=flops_paper,
        activation_bytes=FLOAT_BYTES * outputs if step.kind in ACTIVATIONS else 0,
        moved_bytes=touched + FLOAT_BYTES * weights,
    )


# ------------------------------------------------------------------ parameters


def _parameters(graph: Graph, counting: Counting) -> int:
    """All parameters of a network in one way of counting."""
    if counting == "module":
        return sum(kept.elements for kept in graph.stored.values() if kept.learned)
    if counting == "stored":
        return sum(kept.elements for kept in graph.stored.values())
    return _parameters_of(graph, graph.steps, counting, set())


def _parameters_of(graph: Graph, steps: Iterable[Step], counting: Counting, seen: set[str]) -> int:
    """Parameters of some steps that are not in ``seen`` yet; they are added to it."""
    total = 0
    for step in steps:
        new = [name for name in step.parameters if name not in seen]
        seen.update(new)
        if counting == "paper":
            known = step.parameters and not new  # the same weights once more
            total += 0 if known or step.kind not in WEIGHTED else step.weight + step.units
        elif counting != "layers" or step.kind in WEIGHTED:
            kept = (graph.stored[name] for name in new)
            total += sum(k.elements for k in kept if k.learned or counting != "module")
    return total


# ------------------------------------------------------------------------ ReLU


def _followed_by_relu(graph: Graph) -> set[str]:
    """Names of the steps whose output goes through a ReLU, perhaps after norm or concatenation.

    A sum ends the search: in a residual block the ReLU behind the sum belongs to no convolution.
    """
    readers: dict[int, list[Step]] = defaultdict(list)
    for step in graph.steps:
        for value in set(step.reads):
            readers[value].append(step)

    def reaches(value: int) -> bool:
        ahead, seen = [value], {value}
        while ahead:
            for reader in readers[ahead.pop()]:
                if reader.kind == "relu":
                    return True
                passes = reader.kind in ("norm", "concat") or (reader.kind == "pointwise" and len(reader.reads) == 1)
                if passes and reader.writes[0] not in seen:
                    seen.add(reader.writes[0])
                    ahead.append(reader.writes[0])
        return False

    return {step.name for step in graph.steps if step.kind in WEIGHTED and reaches(step.writes[0])}


# ------------------------------------------------------------ memory at one time

SRAM_BYTES = 16 * MIB
"""The on-chip memory of the SqueezeDet paper, section 3.4."""


@dataclass(frozen=True, slots=True)
class MemoryStep:
    """One kernel of the schedule while it runs, in bytes.

    Attributes:
        name: of the layer.
        reads, writes: its inputs and outputs; in place, what is overwritten is a read.
        kept: what later kernels need and this one does not touch.
    """

    name: str
    reads: int
    writes: int
    kept: int

    @property
    def live(self) -> int:
        """All that is in memory."""
        return self.reads + self.writes + self.kept

    @property
    def pair(self) -> int:
        """The activations on both sides of the layer."""
        return self.reads + self.writes


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The memory that a network needs, kernel by kernel, in the order of the graph."""

    moments: tuple[MemoryStep, ...]

    @property
    def peak(self) -> MemoryStep:
        """When most memory is in use."""
        return max(self.moments, key=lambda moment: moment.live)

    @property
    def largest_pair(self) -> MemoryStep:
        """The layer whose input and output together are largest.

        Section 3.4: when this and the parameters fit in the chip's SRAM together, a network runs without a single
        access to DRAM.
        """
        return max(self.moments, key=lambda moment: moment.pair)


def memory_of(graph: Graph) -> MemoryPlan:
    """What is live while each kernel of a graph runs, in its order.

    An activation is live from the kernel that writes it to the last one that reads it; while a kernel runs, its inputs
    and outputs are live together.

    Raises:
        ModelError: there is nothing to run.
    """
    program = fuse(graph)
    if not program.kernels:
        raise ModelError("the network computes nothing of its input")
    size = program.buffers.__getitem__
    left = Counter(program.outputs)  # how many still want a buffer; the caller wants the outputs
    for kernel in program.kernels:
        left.update(kernel.reads)
    live = set(program.inputs)
    moments = []
    for kernel in program.kernels:
        kept = live - kernel.reads
        moments.append(
            MemoryStep(
                name=kernel.steps[0].name,
                reads=sum(map(size, kernel.reads)),
                writes=sum(map(size, kernel.writes)),
                kept=sum(map(size, kept)),
            )
        )
        left.subtract(kernel.reads)
        live = {buffer for buffer in (*live, *kernel.writes) if left[buffer] > 0}
    return MemoryPlan(tuple(moments))
