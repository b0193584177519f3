"""How much memory the activations of a network need at one time.

An activation is live from the kernel that writes it to the last one that reads it; while a kernel
runs, its inputs and outputs are live together. Kernels run in the order of the graph; what an
engine fuses, overwrites or joins without a copy is in ``graph.fuse``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from squeezedet.charts import Axis, bar_chart
from squeezedet.cost.graph import Graph, fuse
from squeezedet.cost.layers import MIB
from squeezedet.errors import ModelError

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

        Section 3.4: when this and the parameters fit in the chip's SRAM together, a network
        runs without a single access to DRAM.
        """
        return max(self.moments, key=lambda moment: moment.pair)


def memory_of(graph: Graph) -> MemoryPlan:
    """What is live while each kernel of a graph runs.

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


def memory_chart(title: str, memory: MemoryPlan) -> str:
    """Bars of what is live while each layer runs, as SVG; a dashed line marks 16 MiB."""
    moments = memory.moments
    return bar_chart(
        title,
        [moment.name for moment in moments],
        {
            "read": [moment.reads / MIB for moment in moments],
            "written": [moment.writes / MIB for moment in moments],
            "kept for later": [moment.kept / MIB for moment in moments],
        },
        y=Axis("live memory, MiB", low=0),
        level=(SRAM_BYTES / MIB, "16 MiB"),
    )
